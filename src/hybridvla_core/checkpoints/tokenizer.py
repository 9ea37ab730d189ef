"""Does a `tokenizer.json` belong to a model? Read with the `tokenizers` library; nothing is fetched."""
from __future__ import annotations

from pathlib import Path
from typing import Union

from hybridvla_core.errors import CheckpointError
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.transforms.prompt import load_tokenizer

#: How a lone blank is spelt: SentencePiece, byte-level BPE, plain.
BLANKS = ("\u2581", "\u0120", " ")


def check_tokenizer(path: Union[str, Path], config: ModelConfig) -> None:
    """Raises CheckpointError, with the id and both meanings, when the file's vocabulary is not the model's."""
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
