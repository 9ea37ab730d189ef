"""Text into token ids: the prompt, then the separators and markers of the type-1 sequence."""
from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

from tokenizers import Tokenizer

from hybridvla_core.errors import CheckpointError, ObservationError
from hybridvla_core.model.config import SequenceConfig


class PromptEncoder:
    """Instruction to ids with the checkpoint's own `tokenizer.json`; nothing is fetched. Without a tokenizer it still
    builds prompts."""

    def __init__(self, tokenizer: Optional[Tokenizer], config: SequenceConfig) -> None:
        self.tokenizer, self.config = tokenizer, config

    @classmethod
    def from_file(cls, path: Union[str, Path], config: SequenceConfig) -> PromptEncoder:
        return cls(load_tokenizer(path), config)

    def prompt(self, instruction: str) -> str:
        """The released text around the instruction: blanks at its ends stay, `<image>` goes, the right end is stripped."""
        text = instruction.lower() if self.config.lowercase else instruction
        return self.config.prompt.format(instruction=text.replace("<image>", "")).rstrip()

    def text_ids(self, instruction: str) -> List[int]:
        """Ids of the prompt without BOS; raises ObservationError for an instruction that says nothing."""
        if not instruction.replace("<image>", "").strip():
            raise ObservationError("the instruction is empty; say what the robot should do")
        tokenizer = self._known()
        ids = tokenizer.encode(self.prompt(instruction), add_special_tokens=False).ids
        unknown = tokenizer.token_to_id("<unk>")
        if unknown is not None and ids and all(i == unknown for i in ids):
            raise ObservationError(f"the model knows no word of {instruction!r}")
        return ids[1:] if ids and ids[0] == self.config.bos else ids

    def words_of(self, instruction: str, spans: Sequence[Tuple[int, int]]) -> Optional[Tuple[int, int]]:
        """Which of `text_ids` name something: [first, behind the last) of the ids within character ranges of the instruction.

        None where no id lies within them.
        """
        prompt = self.prompt(instruction)
        text = instruction.lower() if self.config.lowercase else instruction
        start = prompt.find(text.rstrip())
        if start < 0 or not spans:
            return None
        encoding = self._known().encode(prompt, add_special_tokens=False)
        skipped = 1 if encoding.ids and encoding.ids[0] == self.config.bos else 0
        inside = [index - skipped for index, (begin, end) in enumerate(encoding.offsets)
                  if end > begin and any(begin < start + last and end > start + first for first, last in spans)]
        return (inside[0], inside[-1] + 1) if inside else None

    def _known(self) -> Tokenizer:
        if self.tokenizer is None:
            raise TypeError("an encoder without a tokenizer only builds prompts")
        return self.tokenizer

    def prefix_ids(self, instruction: str) -> List[int]:
        """Ids between the patches and the state: text, separator, BOD."""
        return self.text_ids(instruction) + list(self.config.before_bod) + [self.config.bod]

    def ids(self, instruction: str, autoregressive: bool = False) -> List[int]:
        """All ids of a prompt as the released code builds them: BOS ... BOD, and EOD with its separator."""
        tail = [self.config.eod, *self.config.after_eod] if autoregressive else []
        return [self.config.bos] + self.prefix_ids(instruction) + tail


def load_tokenizer(path: Union[str, Path]) -> Tokenizer:
    """Raises CheckpointError for a file that is none."""
    try:
        return Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a bare Exception for every fault, and the library's own panics
        raise CheckpointError(f"{path}: not a readable tokenizer ({error}); it must be the tokenizer.json of the "
                              "checkpoint's language model") from error
