"""Encoding of text into token ids: the prompt, then the separators and markers of the type-1 sequence."""
from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

from tokenizers import Encoding, Tokenizer

from hybridvla_core.errors import CheckpointError, ObservationError, few
from hybridvla_core.files import refuse_pointer
from hybridvla_core.model.config import SequenceConfig


class PromptEncoder:
    """Encodes instructions with the checkpoint's own `tokenizer.json`; nothing is downloaded. Without a tokenizer it still
    builds prompts."""

    def __init__(self, tokenizer: Optional[Tokenizer], config: SequenceConfig) -> None:
        self.tokenizer, self.config = tokenizer, config
        added = tokenizer.get_added_tokens_decoder().values() if tokenizer is not None else ()
        self._marks = sorted({token.content for token in added if token.special})

    @classmethod
    def from_file(cls, path: Union[str, Path], config: SequenceConfig) -> PromptEncoder:
        return cls(load_tokenizer(path), config)

    def prompt(self, instruction: str) -> str:
        """Puts the instruction into the released text: blanks at its ends stay, `<image>` goes, the right end is stripped."""
        return self.config.prompt.format(instruction=self._said(instruction)).rstrip()

    def text_ids(self, instruction: str) -> List[int]:
        """Encodes the prompt of an instruction.

        Args:
            instruction: The instruction as given.

            Returns:
                Ids of the prompt without BOS.

        Raises:
            ObservationError: The instruction is empty, the model knows no word of it, or it contains one of the tokenizer's
                special tokens, which would be read as a marker and not as text.
        """
        said = self._said(instruction)
        if not said.strip():
            raise ObservationError("the instruction is empty; say what the robot should do")
        marks = [mark for mark in self._marks if mark in said]
        if marks:
            raise ObservationError(f"the instruction holds {few(marks)}, which the model reads as a mark and not as text; leave "
                                   "it out")
        ids = self._ids(instruction)
        unknown = self._known().token_to_id("<unk>")
        if unknown is not None and ids and all(i == unknown for i in ids):
            raise ObservationError(f"the model knows no word of {instruction[:200]!r}")
        return ids[1:] if ids and ids[0] == self.config.bos else ids

    def words_of(self, instruction: str, spans: Sequence[Tuple[int, int]]) -> Optional[Tuple[int, int]]:
        """Finds the ids in `text_ids` that name something.

        Args:
            instruction: The instruction as given.
            spans: [begin, end) ranges of the instruction's characters. If it is named several times, the first name counts: the
                text between two names is not part of a name.

        Returns:
            [first, last + 1) of the ids within the name; None if there is no id in it.
        """
        prompt = self.prompt(instruction)
        text = instruction.lower() if self.config.lowercase else instruction
        start = prompt.find(text.rstrip())
        if start < 0 or not spans:
            return None
        encoding = encoded(self._known(), prompt)
        skipped = 1 if encoding.ids and encoding.ids[0] == self.config.bos else 0
        first, last = min(spans)
        inside = [index - skipped for index, (begin, end) in enumerate(encoding.offsets)
                  if end > begin and begin < start + last and end > start + first]
        return (inside[0], inside[-1] + 1) if inside else None

    def _known(self) -> Tokenizer:
        if self.tokenizer is None:
            raise TypeError("an encoder without a tokenizer only builds prompts")
        return self.tokenizer

    def unknown_words(self, instruction: str) -> List[str]:
        """Returns the parts of the prompt that the tokenizer has no id for, each once, in order."""
        unknown = self._known().token_to_id("<unk>")
        text = self.prompt(instruction)
        found = encoded(self._known(), text)
        words = [text[start:end] for token, (start, end) in zip(found.ids, found.offsets) if token == unknown]
        return list(dict.fromkeys(words))

    def _said(self, instruction: str) -> str:
        """Returns the instruction as it appears in the prompt."""
        try:
            instruction.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ObservationError(f"the instruction {ascii(instruction)[:200]} is not valid text; give it in UTF-8") from error
        return (instruction.lower() if self.config.lowercase else instruction).replace("<image>", "")

    def _ids(self, instruction: str) -> List[int]:
        return list(encoded(self._known(), self.prompt(instruction)).ids)

    def prefix_ids(self, instruction: str, state: Sequence[int] = ()) -> List[int]:
        """Returns the ids between the patches and the state: text, the state if it is passed as words, separator, BOD."""
        return [*self.text_ids(instruction), *state, *self.config.behind_text]

    def ids(self, instruction: str, autoregressive: bool = False) -> List[int]:
        """Returns all ids of a prompt as the released code builds them: BOS ... BOD, and EOD with its separator."""
        tail = [self.config.eod, *self.config.after_eod] if autoregressive else []
        return [self.config.bos] + self.prefix_ids(instruction) + tail


def encoded(tokenizer: Tokenizer, text: str) -> Encoding:
    """Returns the text's ids with their positions; raises ObservationError if the library cannot read the text."""
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library panics on some settings of a file
        raise ObservationError(f"the tokenizer cannot read {text[:200]!r} ({error}); check its file") from error


def load_tokenizer(path: Union[str, Path]) -> Tokenizer:
    """Reads a tokenizer without the settings that files carry from their last use.

    Truncation, padding, and merges that are dropped at random would change ids.

    Args:
        path: Path of the file.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: The file is not a tokenizer.
        KeyboardInterrupt: Passed on if it came while the file was read.
        SystemExit: Passed on if it came while the file was read.
    """
    refuse_pointer(path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a bare Exception for every fault, and the library's own panics
        raise CheckpointError(f"{path}: not a readable tokenizer ({error}); it must be the tokenizer.json of the "
                              "checkpoint's language model") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None) is not None:
        tokenizer.model.dropout = None
    return tokenizer
