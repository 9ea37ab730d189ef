"""Check that a `tokenizer.json` belongs to a model. It is read with the `tokenizers` library; nothing is downloaded."""
from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Union

from tokenizers import Tokenizer

from hybridvla_core.errors import CheckpointError, ObservationError
from hybridvla_core.model.config import ModelConfig, SequenceConfig
from hybridvla_core.model.presets import LLAMA_SEQUENCE, PHI_SEQUENCE
from hybridvla_core.transforms.prompt import PromptEncoder, encoded, load_tokenizer

#: Spelling of a lone blank: SentencePiece, byte-level BPE, plain.
SENTENCEPIECE, BYTE_LEVEL, PLAIN = "\u2581", "\u0120", " "
BLANKS = (SENTENCEPIECE, BYTE_LEVEL, PLAIN)
#: Text that any wrong normaliser changes: capitals, two blanks, an accent as one character and as two, a wide letter, a
#: ligature, a line break.
DELICATE = "In: What  \u00e9 e\u0301 \uff21 \ufb01le?\nOut:"
#: One prompt and its ids in the two families, recorded with the released implementation, without BOS and what follows.
KNOWN = "close the laptop"
KNOWN_IDS = (
    (LLAMA_SEQUENCE, (512, 29901, 1724, 3158, 881, 278, 19964, 2125, 304, 3802, 278, 19022, 29973, 13, 3744, 29901)),
    (PHI_SEQUENCE, (20560, 25, 1867, 2223, 815, 262, 9379, 1011, 284, 1969, 262, 13224, 30, 198, 26410, 25)))


def check_tokenizer(path: Union[str, Path], config: ModelConfig) -> None:
    """Checks that a tokenizer is the model's.

    Args:
        path: Path of the file.
        config: The architecture.

    Raises:
        CheckpointError: The vocabulary differs, which the message shows by an id and both meanings, or the tokenizer maps a text
            to other ids than the model was trained with.
    """
    tokenizer, sequence = load_tokenizer(path), config.sequence
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= config.decoder.vocab_rows:
        raise CheckpointError(f"{path}: has ids up to {largest}, the model has {config.decoder.vocab_rows} rows; it belongs "
                              "to another model")
    for blank in sequence.before_bod + sequence.after_eod:
        if tokenizer.id_to_token(blank) not in BLANKS:
            raise CheckpointError(f"{path}: id {blank} is {tokenizer.id_to_token(blank)!r}, the model was trained with a "
                                  "blank there; it belongs to another model")
    start = tokenizer.id_to_token(sequence.bos)
    if start is None or not start.startswith("<"):
        raise CheckpointError(f"{path}: id {sequence.bos} is {start!r}, the model begins every sequence with it; it belongs "
                              "to another model")
    for name, token in (("<PAD>", sequence.pad), ("<BOD>", sequence.bod), ("<EOD>", sequence.eod)):
        added = tokenizer.token_to_id(name)
        if added is not None and added != token:
            raise CheckpointError(f"{path}: {name} is id {added}, the model was trained with {token}; it belongs to "
                                  "another model")
    _check_text(path, tokenizer, sequence)


def _check_text(path: Union[str, Path], tokenizer: Tokenizer, sequence: SequenceConfig) -> None:
    """Checks that the ids of a delicate text spell it, and that those of a known prompt are the recorded ones.

    A vocabulary of whole words has no blank and is not checked.

    Raises:
        CheckpointError: The ids do not spell the text, or differ from the recorded ones.
    """
    if not sequence.before_bod:
        return
    blank = tokenizer.id_to_token(sequence.before_bod[0])
    try:
        spelt = _spelt(tokenizer, list(encoded(tokenizer, DELICATE).ids), blank)
    except ObservationError as error:
        raise CheckpointError(f"{path}: its normaliser or its way of splitting is not the language model's ({error}); give the "
                              "tokenizer.json that belongs to it, unchanged") from error
    expected = (" " if blank == SENTENCEPIECE else "") + DELICATE
    if spelt != expected:
        raise CheckpointError(f"{path}: makes {spelt!r} of the text {expected!r}: its normaliser or its way of splitting is not "
                              "the language model's; give the tokenizer.json that belongs to it, unchanged")
    for family, ids in KNOWN_IDS:
        if (family.bos, family.before_bod, family.action_vocab_end) != (sequence.bos, sequence.before_bod,
                                                                         sequence.action_vocab_end):
            continue
        found: List[int] = PromptEncoder(tokenizer, family).text_ids(KNOWN)
        if tuple(found) != ids:
            place = next((i for i, pair in enumerate(zip(found, ids)) if pair[0] != pair[1]), min(len(found), len(ids)))
            there, here = list(found[place:place + 3]), list(ids[place:place + 3])
            raise CheckpointError(f"{path}: the ids of the prompt for {KNOWN!r} differ from the recorded ones from position "
                                  f"{place} on ({there} instead of {here}); it belongs to another model, or was changed")


def _spelt(tokenizer: Tokenizer, ids: List[int], blank: str) -> str:
    """Returns the text of ids, with blanks and bytes resolved here: a file's own decoder may hide what was lost."""
    characters = _byte_level() if blank == BYTE_LEVEL else {}
    data = b""
    for token in (tokenizer.id_to_token(i) or "" for i in ids):
        if characters and all(letter in characters for letter in token):
            data += bytes(characters[letter] for letter in token)
        elif not characters and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            data += bytes([int(token[3:5], 16)])
        else:
            data += token.replace(SENTENCEPIECE, " ").encode("utf-8")
    return data.decode("utf-8", errors="replace")


def _byte_level() -> Dict[str, int]:
    """Returns letter -> byte of byte-level BPE: printable bytes stand for themselves, the others follow from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{chr(byte): byte for byte in plain}, **{chr(256 + place): byte for place, byte in enumerate(others)}}
