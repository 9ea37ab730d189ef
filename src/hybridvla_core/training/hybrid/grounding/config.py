"""Terms that may be taught from the grounding of samples, and their weights."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple

from hybridvla_core.configuration import Vector, in_range, require
from hybridvla_core.errors import few
from hybridvla_core.training.hybrid.parts import ATTENTION, PATCHES, POINTING


@dataclass(frozen=True)
class GroundingConfig:
    """Weights of the terms that use the samples' grounding; 0 leaves a term out (docs/training.md).

    Attributes:
        patches: Tower features of the patches that show a named object predict its name and its place.
        pointing: The words that name an object point at its patches.
        places: The words that name an object predict its place.
        attention: The decoder's own attention, from the last word of a name, is on the object's patches.
        attention_layers: Layers of the decoder whose attention is taught, from 0.
        attention_heads: Number of taught heads in each of these layers, counted from the first; the others are left alone.
        state_action: The state token, or the last one before the noise, predicts the action.
        subtask: The same token predicts the step of the task.
        turns: Yaw of an object, learned by the same patches and words that learn its place, if the data state it. The weight
            is relative to that of the place.
        place_views: Cameras whose patches learn places; empty for all. The picture of a moving camera determines no place
            unless the pose of the camera is known.
        centre: Origin of normalised places, m.
        scale: Unit of normalised places, m.
    """

    patches: float = 0.0
    pointing: float = 0.0
    places: float = 0.0
    attention: float = 0.0
    attention_layers: Tuple[int, ...] = ()
    attention_heads: int = 1
    state_action: float = 0.0
    subtask: float = 0.0
    turns: float = 0.0
    place_views: Tuple[str, ...] = ()
    centre: Vector = (0.5, 0.0, 0.05)
    scale: float = 0.15

    def __post_init__(self) -> None:
        for name in ("patches", "pointing", "places", "attention", "state_action", "subtask", "turns"):
            in_range(f"grounding: {name}", getattr(self, name), 0.0, 1e3)
        layers = self.attention_layers
        require(len(set(layers)) == len(layers) and min(layers, default=0) >= 0,
                f"grounding: attention_layers {list(layers)} must be numbers of layers from 0, each once")
        require(self.attention == 0 or bool(layers),
                "grounding: attention needs attention_layers, those of the decoder that are taught, from 0")
        in_range("grounding: attention_heads", self.attention_heads, 1, 1000)
        require(self.turns == 0 or max(self.patches, self.places) > 0,
                "grounding: turns counts only with patches or places; give one of them a weight, too")
        require(len(set(self.place_views)) == len(self.place_views),
                f"grounding: place_views {list(self.place_views)} must differ")
        require(len(self.centre) == 3 and self.scale > 0, "grounding: centre needs three numbers and scale a positive one, m")

    @property
    def used(self) -> bool:
        """Whether any head is needed."""
        return max(self.patches, self.pointing, self.places, self.attention, self.state_action, self.subtask) > 0

    def check_augmentation(self, kind: str) -> None:
        """Checks that pictures are not moved under the patches that show a named object.

        Args:
            kind: Augmentation of the pictures.

        Raises:
            ConfigurationError: It crops, and a term with a weight is taught by patches.
        """
        taught = [name for name in (PATCHES, POINTING, ATTENTION) if getattr(self, name)]
        require(kind != "released" or not taught, f"augment: released crops the pictures, and grounding: {few(taught)} would be "
                "taught by patches that no longer show the object; write augment: photometric, which moves nothing")

    def placing(self, cameras: Sequence[str], patches: int) -> Tuple[bool, ...]:
        """Tells which patches learn places.

        Args:
            cameras: Cameras of the model, in its order.
            patches: Patches of one view.

        Returns:
            One answer per patch of all views; empty if every patch counts, and then objects that no view shows count too.

        Raises:
            ConfigurationError: `place_views` names another camera.
        """
        strange = [view for view in self.place_views if view not in cameras]
        require(not strange, f"grounding: place_views names {', '.join(strange)}; the model's cameras are {', '.join(cameras)}")
        return tuple(camera in self.place_views for camera in cameras for _ in range(patches)) if self.place_views else ()

    def fit(self, layers: int, heads: int) -> None:
        """Checks the layers and heads against a decoder.

        Args:
            layers: Number of layers of the decoder.
            heads: Number of heads of each layer.

        Raises:
            ConfigurationError: There is no such layer or head.
        """
        if self.attention:
            require(max(self.attention_layers) < layers, f"grounding: attention_layers {list(self.attention_layers)}: the "
                    f"decoder has {layers} layers, 0 to {layers - 1}")
            require(self.attention_heads <= heads,
                    f"grounding: attention_heads is {self.attention_heads}; a layer of the decoder has {heads}")
