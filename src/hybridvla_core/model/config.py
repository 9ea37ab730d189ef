"""The architecture, given by its dimensions, as frozen self-checking dataclasses.

Registry names of released models decide nothing here: every dimension, token id and convention is written out, so that a
tiny model and the 7B one use the same classes.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from hybridvla_core.errors import ConfigurationError

TOWER_KINDS = ("dino", "siglip", "clip")
FAMILIES = ("llama", "phi")
FINAL_NORMS = ("variance", "mean_square")
SEQUENCE_KINDS, STATE_FORMS = (1, 2, 3, 4), ("embedding", "words", "none")


def _check_sizes(where: str, largest: int, **sizes: int) -> None:
    """Raises ConfigurationError unless all sizes are whole numbers from 1 to `largest`; more is a damaged file, not a model."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not 1 <= value <= largest:
            raise ConfigurationError(f"{where}: {name} is {value}; use a whole number from 1 to {largest}")



@dataclass(frozen=True)
class TowerConfig:
    """One vision transformer; features come from block `depth - 2`, before the final norm, without prefix tokens.

    Attributes:
        kind: dino (class and 4 register tokens without positions, LayerScale), siglip (patches only), clip (class token, norm
            before the blocks, quick GELU, no patch bias).
        image_size: Side of its images, px.
        patch_size: Side of a patch, px.
        width: Width of its hidden states.
        depth: Number of blocks.
        heads: Number of attention heads.
        mlp_width: Width of the MLP's hidden layer.
        mean: (3,) mean of each RGB channel, for pixels in [0, 1].
        std: (3,) standard deviation of each RGB channel, likewise.
    """

    kind: str
    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    mean: Tuple[float, ...]
    std: Tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in TOWER_KINDS:
            raise ConfigurationError(f"vision tower kind {self.kind!r}; use one of {', '.join(TOWER_KINDS)}")
        _check_sizes(f"vision tower {self.kind}", 65536, image_size=self.image_size, patch_size=self.patch_size,
                     width=self.width, heads=self.heads, mlp_width=self.mlp_width)
        _check_sizes(f"vision tower {self.kind}", 1024, depth=self.depth)
        if self.image_size % self.patch_size or self.width % self.heads or self.depth < 2:
            raise ConfigurationError(f"vision tower {self.kind}: image_size must be a multiple of patch_size, width of "
                                     "heads, and depth at least 2")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ConfigurationError(f"vision tower {self.kind}: mean and std need three channels")
        if not all(0.0 <= m <= 1.0 for m in self.mean) or not all(0.0 < d <= 1.0 for d in self.std):
            raise ConfigurationError(f"vision tower {self.kind}: mean must be from 0 to 1, std above 0 and at most 1")

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class DecoderConfig:
    """The language model.

    Attributes:
        family: llama or phi.
        hidden: Width of its hidden states.
        layers: Number of blocks.
        heads: Number of attention heads.
        kv_heads: Number of heads of keys and values.
        intermediate: Width of the MLP's hidden layer.
        vocab_rows: Rows of the embedding.
        norm_eps: Epsilon of its norms.
        rope_theta: Base of the rotary frequencies.
        rotary_dim: Rotated channels of a head (all of them for Llama, int(0.4 * head) for Phi-2).
    """

    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab_rows: int
    norm_eps: float
    rope_theta: float
    rotary_dim: int

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigurationError(f"decoder family {self.family!r}; use one of {', '.join(FAMILIES)}")
        _check_sizes("decoder", 1 << 20, hidden=self.hidden, heads=self.heads, kv_heads=self.kv_heads,
                     intermediate=self.intermediate, vocab_rows=self.vocab_rows, rotary_dim=self.rotary_dim)
        _check_sizes("decoder", 1024, layers=self.layers)
        if not 0.0 < self.norm_eps < 1.0 or not 1.0 < self.rope_theta < 1e9:
            raise ConfigurationError("decoder: norm_eps must be between 0 and 1, rope_theta between 1 and 1e9")
        if self.hidden % self.heads or self.heads % self.kv_heads:
            raise ConfigurationError("decoder: hidden must be a multiple of heads, and heads of kv_heads")
        if self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim:
            raise ConfigurationError(f"decoder: rotary_dim must be even and at most {self.head_dim}")

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


@dataclass(frozen=True)
class SequenceConfig:
    """Token ids and separators of the sequence (paper, section 3.2 and table 1).

    Attributes:
        bos: Id of the begin of the sequence.
        eos: Id of its end.
        pad: Id of the padding.
        bod: Id of the begin of diffusion (BOD).
        eod: Id of the end of diffusion (EOD).
        before_bod: Ids between the prompt and BOD (released: 29871 or 220).
        after_eod: Ids between EOD and the first action token (released Llama: 29871).
        action_vocab_end: Vt; action ids are Vt - bins .. Vt - 1.
        need_to_sub: Shift of the action ids, a released quirk.
        prompt: The text around {instruction}.
        lowercase: Whether the instruction is put in lower case.
        kind: The sequence of table 1: 1 (noise before tokens, between markers), 2 (without markers), 3 (the state in words),
            4 (tokens before noise).
        state: How the robot state enters: `embedding`, `words` (ids of its bins after the text) or `none`.
    """

    bos: int
    eos: int
    pad: int
    bod: int
    eod: int
    before_bod: Tuple[int, ...]
    after_eod: Tuple[int, ...]
    action_vocab_end: int
    need_to_sub: int
    prompt: str
    lowercase: bool
    kind: int = 1
    state: str = "embedding"

    def __post_init__(self) -> None:
        if self.kind not in SEQUENCE_KINDS or self.state not in STATE_FORMS or (self.kind == 3) > (self.state == "words"):
            raise ConfigurationError(f"sequence: kind {self.kind} with state {self.state!r}; use kind 1 to 4 and one of "
                                     f"{', '.join(STATE_FORMS)}, words with kind 3")
        if "{instruction}" not in self.prompt:
            raise ConfigurationError("sequence: prompt must contain {instruction}")
        try:
            self.prompt.format(instruction="")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ConfigurationError(f"sequence: prompt {self.prompt!r} has another field than {{instruction}}") from error

    @property
    def behind_text(self) -> Tuple[int, ...]:
        """Ids between the words and the state."""
        return (*self.before_bod, *((self.bod,) if self.kind in (1, 3) else ()))

    @property
    def before_tokens(self) -> Tuple[int, ...]:
        """Ids between the noise, or the prefix, and the first action token of a branch."""
        return (self.eod, *self.after_eod) if self.kind in (1, 3) else ()

    @property
    def state_row(self) -> bool:
        """Whether the state has its own row, the last one of the prefix."""
        return self.state == "embedding"

    @property
    def answers_first(self) -> bool:
        """Whether the tokens come before the noise, in the prefix."""
        return self.kind == 4


@dataclass(frozen=True)
class ModelConfig:
    """The whole model.

    Attributes:
        towers: Vision transformers that see the same number of patches.
        tower_norm: LayerNorm after the towers (off in released models).
        projector: Output widths of its linear layers; the last equals the decoder's hidden width.
        projector_norm: LayerNorm after the projector (off in released models).
        decoder: The language model.
        sequence: Token ids and separators.
        action_dim: Dimensions of an action, 7 or 14.
        chunk: Number of actions predicted at once (K).
        views: Number of images in one observation.
        bins: Number of bins of an action channel's tokens.
        final_norm: Formula of the last norm: `variance` or `mean_square`.
    """

    towers: Tuple[TowerConfig, ...]
    tower_norm: bool
    projector: Tuple[int, ...]
    projector_norm: bool
    decoder: DecoderConfig
    sequence: SequenceConfig
    action_dim: int
    chunk: int
    views: int
    bins: int
    final_norm: str

    def __post_init__(self) -> None:
        _check_sizes("model", 1 << 20, bins=self.bins, **{f"projector[{i}]": w for i, w in enumerate(self.projector)})
        _check_sizes("model", 1024, chunk=self.chunk)
        if self.bins < 2 or not self.projector:
            raise ConfigurationError("model: bins must be at least 2, and projector needs one width or more")
        if not self.towers or len({tower.patches for tower in self.towers}) != 1:
            raise ConfigurationError("the vision towers must see the same number of patches")
        if self.projector[-1] != self.decoder.hidden:
            raise ConfigurationError(f"the projector ends at {self.projector[-1]}, the decoder needs {self.decoder.hidden}")
        if self.action_dim not in (7, 14) or self.chunk < 1 or not 1 <= self.views <= 3:
            raise ConfigurationError("action_dim must be 7 or 14, chunk at least 1, views 1 to 3")
        if self.final_norm not in FINAL_NORMS:
            raise ConfigurationError(f"final_norm {self.final_norm!r}; use one of {', '.join(FINAL_NORMS)}")
        sequence, rows = self.sequence, self.decoder.vocab_rows
        last = sequence.action_vocab_end - sequence.need_to_sub
        if sequence.need_to_sub < 0 or last > rows or self.bins > last:
            raise ConfigurationError("action ids lie outside the vocabulary")
        marks = (sequence.bos, sequence.eos, sequence.pad, sequence.bod, sequence.eod, *sequence.before_bod,
                 *sequence.after_eod)
        if not all(0 <= token < rows for token in marks):
            raise ConfigurationError(f"sequence: token ids {marks} must lie from 0 to {rows - 1}")
        if len({tower.kind for tower in self.towers}) != len(self.towers):
            raise ConfigurationError("the vision towers must be of different kinds")

    @property
    def vision_width(self) -> int:
        return sum(tower.width for tower in self.towers)

    @property
    def patches(self) -> int:
        """Patches of one view."""
        return self.towers[0].patches
