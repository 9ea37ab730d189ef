"""What may be taught from the grounding of samples, and how much of it."""
from __future__ import annotations

from dataclasses import dataclass

from hybridvla_core.configuration import Vector, in_range, require


@dataclass(frozen=True)
class GroundingConfig:
    """Weights of the terms that the samples' grounding feeds; 0 leaves a term out (docs/training.md).

    Attributes:
        patches: Tower features of the patches that show a named object: its name and its place.
        pointing: The words that name an object point at its patches.
        places: The words that name an object know its place.
        state_action: The state token, or the last one before the noise, knows the action.
        centre: Origin of normalised places, m.
        scale: Unit of normalised places, m.
    """

    patches: float = 0.0
    pointing: float = 0.0
    places: float = 0.0
    state_action: float = 0.0
    centre: Vector = (0.5, 0.0, 0.05)
    scale: float = 0.15

    def __post_init__(self) -> None:
        for name in ("patches", "pointing", "places", "state_action"):
            in_range(f"grounding: {name}", getattr(self, name), 0.0, 1e3)
        require(len(self.centre) == 3 and self.scale > 0, "grounding: centre needs three numbers and scale a positive one, m")

    @property
    def used(self) -> bool:
        """Whether any head is needed."""
        return max(self.patches, self.pointing, self.places, self.state_action) > 0
