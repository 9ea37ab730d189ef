"""What a trainer sees of one moment, from whatever source: images, state, the chunk of actions that follows, words."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Dict, List, Mapping, Optional, Tuple

import numpy as np

from hybridvla_core.errors import DataError


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise DataError(sentence)


@dataclass(frozen=True)
class GroundedObject:
    """An object that the instruction names.

    Attributes:
        spans: character ranges [begin, end) of the instruction that name it.
        patches: view -> (P,) indices of the patches that show it, row-major in the encoder's grid.
        place: (3,) m, its centre in the base frame of the first arm, or None where it is not known.
        yaw: rad, how it is turned about the vertical axis of that frame, or None where it is not known or it is round.
        symmetry: It looks the same after each of so many parts of a full turn: 4 of a cube.
    """

    spans: Tuple[Tuple[int, int], ...]
    patches: Mapping[str, np.ndarray] = field(default_factory=dict)
    place: Optional[np.ndarray] = None
    yaw: Optional[float] = None
    symmetry: int = 1

    #: Stands in the JSON of an object that says how it is turned, and in no other.
    TURNED: ClassVar[str] = '"yaw"'

    def __post_init__(self) -> None:
        _require(all(0 <= begin < end for begin, end in self.spans), f"grounding: spans {self.spans} must be [begin, end)")
        for view, indices in self.patches.items():
            array = np.asarray(indices)
            _require(array.ndim == 1 and (array.size == 0 or (array.dtype.kind in "iu" and int(array.min()) >= 0)),
                     f"grounding: patches of view {view} must be a list of indices from 0")
        if self.place is not None:
            place = np.asarray(self.place)
            _require(place.shape == (3,) and bool(np.isfinite(place).all()),
                     "grounding: a place must be three finite numbers, m")
        if self.yaw is not None:
            _require(bool(np.isfinite(self.yaw)) and self.symmetry >= 1,
                     f"grounding: yaw {self.yaw} must be a finite number, rad, and symmetry {self.symmetry} at least 1")

    @property
    def turn(self) -> Optional[Tuple[float, float]]:
        """Cosine and sine of `symmetry` times the yaw, so that what looks the same is the same; None without a yaw."""
        if self.yaw is None:
            return None
        return float(np.cos(self.symmetry * self.yaw)), float(np.sin(self.symmetry * self.yaw))

    def as_json(self) -> Dict[str, object]:
        """For one line of JSON."""
        turned = {} if self.yaw is None else {"yaw": float(self.yaw), "symmetry": self.symmetry}
        return {"spans": [list(span) for span in self.spans],
                "patches": {view: np.asarray(indices).tolist() for view, indices in self.patches.items()},
                "place": None if self.place is None else np.asarray(self.place, dtype=float).tolist(), **turned}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> GroundedObject:
        """Reads what `as_json` wrote.

        Args:
            data: The mapping.

        Returns:
            The object.

        Raises:
            DataError: A key is missing, or a value is of another kind.
        """
        try:
            spans = tuple((int(begin), int(end)) for begin, end in data["spans"])  # type: ignore[attr-defined]
            patches = {str(view): np.asarray(indices, dtype=np.int64)
                       for view, indices in data.get("patches", {}).items()}  # type: ignore[attr-defined]
            place, yaw = data.get("place"), data.get("yaw")
            return cls(spans, patches, None if place is None else np.asarray(place, dtype=float),
                       None if yaw is None else float(yaw), int(data.get("symmetry", 1)))  # type: ignore[arg-type, call-overload]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"grounding: {data!r:.80} needs spans, patches by view and a place ({error})") from error


@dataclass(frozen=True)
class Sample:
    """One moment to train from; K = chunk, A = action dimensions.

    Attributes:
        images: view -> (height, width, 3) uint8 RGB, in the policy's order of cameras.
        state: (S,) physical units, in the data set's state convention.
        actions: (K, A) physical units; row 0 is executed first.
        padding: (K,) bool; True rows lie behind the episode's end and carry no label.
        instruction: what was to be done, never empty.
        episode: number of the episode in its data set.
        frame: number of the frame in its episode.
        success: how the episode was labelled; None where nobody said.
        correction: whether a person had taken over from a policy.
        grounding: the objects that the instruction names; empty where it is not known.
        subtask: name of the step of the task that the action belongs to; empty where it is not known.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray
    actions: np.ndarray
    padding: np.ndarray
    instruction: str
    episode: int
    frame: int
    success: Optional[bool] = None
    correction: bool = False
    grounding: Tuple[GroundedObject, ...] = ()
    subtask: str = ""

    def __post_init__(self) -> None:
        where = f"episode {self.episode}, frame {self.frame}"
        _require(bool(self.images), f"{where}: no image; a sample needs one view at least")
        for view, image in self.images.items():
            _require(image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8,
                     f"{where}: view {view} is {image.dtype} {image.shape}; use (height, width, 3) uint8 RGB")
        _require(self.state.ndim == 1, f"{where}: the state has shape {self.state.shape}; use (S,)")
        _require(self.actions.ndim == 2 and len(self.actions) > 0,
                 f"{where}: the actions have shape {self.actions.shape}; use (K, A)")
        _require(self.padding.shape == self.actions.shape[:1] and self.padding.dtype == np.bool_,
                 f"{where}: the padding mask must be {self.actions.shape[:1]} bool, found {self.padding.dtype} "
                 f"{self.padding.shape}")
        _require(not bool(self.padding[0]) and bool((np.diff(self.padding.astype(np.int8)) >= 0).all()),
                 f"{where}: padding stands at a chunk's end and never at its first row")
        _require(bool(np.isfinite(self.state).all()), f"{where}: the state holds a number that is not finite")
        _require(bool(np.isfinite(self.actions[~self.padding]).all()), f"{where}: an action is not finite")
        _require(bool(self.instruction.strip()), f"{where}: the instruction is empty")
        longest = len(self.instruction)
        for item in self.grounding:
            _require(all(end <= longest for _, end in item.spans), f"{where}: a grounded span ends behind the instruction")
            unknown = sorted(set(item.patches) - set(self.images))
            _require(not unknown, f"{where}: patches of views that the sample has not: {', '.join(unknown)}")


def chunk_of(actions: np.ndarray, start: int, length: int) -> Tuple[np.ndarray, np.ndarray]:
    """Cuts a chunk out of an episode and pads it at the end with its last row.

    Args:
        actions: (N, A) of one episode.
        start: first row.
        length: K.

    Returns:
        ((K, A), (K,) bool, True where padded).

    Raises:
        DataError: `start` is no row, or K is below 1.
    """
    if not 0 <= start < len(actions) or length < 1:
        raise DataError(f"a chunk of {length} from row {start} of an episode of {len(actions)} rows cannot be cut")
    rows: List[int] = [min(start + step, len(actions) - 1) for step in range(length)]
    return actions[rows], np.arange(start, start + length) >= len(actions)
