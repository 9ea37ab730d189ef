"""Tokenizers that give the ids of the two released families for one prompt; all other words are filler."""
from __future__ import annotations

from typing import Dict, List, Tuple

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

LLAMA_WORDS = {"\u2581In": 512, ":": 29901, "\u2581What": 1724, "\u2581action": 3158, "\u2581should": 881, "\u2581the": 278,
               "\u2581robot": 19964, "\u2581take": 2125, "\u2581to": 304, "\u2581close": 3802, "\u2581laptop": 19022,
               "?": 29973, "Out": 3744, "\u2581": 29871}
PHI_WORDS = {"Input": 20560, ":": 25, "\u0120What": 1867, "\u0120action": 2223, "\u0120should": 815, "\u0120the": 262,
             "\u0120robot": 9379, "\u0120take": 1011, "\u0120to": 284, "\u0120close": 1969, "\u0120laptop": 13224, "?": 30,
             "Output": 26410, "\u0120": 220, "\u010a": 198}


def _vocabulary(fixed: Dict[str, int], letters: List[str], size: int) -> Tuple[Dict[str, int], List[Tuple[str, str]]]:
    """Return a vocabulary with every id below `size`; words are merged letter by letter from their start."""
    chains = [word[:end] for word in fixed if len(word) > 1 and not word.startswith("<") for end in range(2, len(word) + 1)]
    merges = [(chain[:-1], chain[-1]) for chain in dict.fromkeys(chains)]
    vocabulary = dict(fixed)
    rest = [word for word in dict.fromkeys(letters + chains) if word not in vocabulary]
    free = (i for i in range(size) if i not in set(vocabulary.values()))
    for i in list(free):
        vocabulary[rest.pop() if rest else f"filler{i}"] = i
    return vocabulary, merges


def known_llama(size: int = 32000) -> Tokenizer:
    """Return a tokenizer like Llama-2's."""
    marks = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    letters = [chr(code) for code in range(33, 127)]
    vocabulary, merges = _vocabulary({**marks, **LLAMA_WORDS}, letters, size)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    return tokenizer


def known_phi(size: int = 50257) -> Tokenizer:
    """Return a tokenizer like CodeGen's."""
    vocabulary, merges = _vocabulary({**PHI_WORDS, "<|endoftext|>": 50256}, sorted(pre_tokenizers.ByteLevel.alphabet()), size)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>")])
    return tokenizer
