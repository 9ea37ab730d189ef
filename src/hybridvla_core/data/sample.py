"""Training sample of one moment, from any source: images, state, the chunk of actions that follows, words."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Dict, List, Mapping, Optional, Tuple

import numpy as np

from hybridvla_core.errors import DataError


# Every training sample is checked, so a message is built only if a check fails: building all of them costs more than the
# checks.
def _finite(values: np.ndarray) -> bool:
    return bool(np.count_nonzero(np.isfinite(values)) == values.size)


def _check_patches(patches: Mapping[str, np.ndarray]) -> None:
    for view, indices in patches.items():
        array = np.asarray(indices)
        if array.ndim != 1 or array.size and (array.dtype.kind not in "iu" or np.count_nonzero(array < 0)):
            raise DataError(f"grounding: patches of view {view} must be a list of indices from 0")


@dataclass(frozen=True)
class GroundedObject:
    """An object that the instruction names.

    Attributes:
        spans: Character ranges [begin, end) of the instruction that name the object.
        patches: View -> (P,) indices of the patches that show the object, row-major in the encoder's grid.
        place: (3,) m, centre of the object in the base frame of the first arm; None if it is not known.
        yaw: Rotation about the vertical axis of that frame, rad; None if it is not known or the object is round.
        symmetry: Number of equal turns in a full one after each of which the object looks the same: 4 for a cube.
    """

    spans: Tuple[Tuple[int, int], ...]
    patches: Mapping[str, np.ndarray] = field(default_factory=dict)
    place: Optional[np.ndarray] = None
    yaw: Optional[float] = None
    symmetry: int = 1

    #: Text that occurs in the JSON of an object if and only if its yaw is given.
    TURNED: ClassVar[str] = '"yaw"'

    def __post_init__(self) -> None:
        for begin, end in self.spans:
            if not 0 <= begin < end:
                raise DataError(f"grounding: spans {self.spans} must be [begin, end)")
        _check_patches(self.patches)
        if self.place is not None:
            place = np.asarray(self.place)
            if place.shape != (3,) or not _finite(place):
                raise DataError("grounding: a place must be three finite numbers, m")
        if self.yaw is not None and not (np.isfinite(self.yaw) and self.symmetry >= 1):
            raise DataError(f"grounding: yaw {self.yaw} must be a finite number, rad, and symmetry {self.symmetry} at least 1")

    @property
    def turn(self) -> Optional[Tuple[float, float]]:
        """Cosine and sine of `symmetry` times the yaw, equal for orientations that look the same; None without a yaw."""
        if self.yaw is None:
            return None
        return float(np.cos(self.symmetry * self.yaw)), float(np.sin(self.symmetry * self.yaw))

    def as_json(self) -> Dict[str, object]:
        """Returns the object as a mapping for one line of JSON."""
        turned = {} if self.yaw is None else {"yaw": float(self.yaw), "symmetry": self.symmetry}
        return {"spans": [list(span) for span in self.spans],
                "patches": {view: np.asarray(indices).tolist() for view, indices in self.patches.items()},
                "place": None if self.place is None else np.asarray(self.place, dtype=float).tolist(), **turned}

    @classmethod
    def from_json(cls, data: Mapping[str, object], views: Optional[Mapping[str, str]] = None) -> GroundedObject:
        """Reads what `as_json` wrote.

        Args:
            data: The mapping.
            views: Wanted name of a view -> its name in `data`; other views are left out. None for all, with their own names.

        Returns:
            The object.

        Raises:
            DataError: A key is missing, or a value is of another kind.
        """
        try:
            spans = tuple((int(begin), int(end)) for begin, end in data["spans"])  # type: ignore[attr-defined]
            patches = {str(view): np.asarray(indices, dtype=np.int64)
                       for view, indices in data.get("patches", {}).items()}  # type: ignore[attr-defined]
            shown = patches if views is None else {name: patches[view] for name, view in views.items() if view in patches}
            place, yaw = data.get("place"), data.get("yaw")
            found = cls(spans, shown, None if place is None else np.asarray(place, dtype=float),
                        None if yaw is None else float(yaw), int(data.get("symmetry", 1)))  # type: ignore[arg-type,call-overload]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"grounding: {data!r:.80} needs spans, patches by view and a place ({error})") from error
        if views is not None:       # views that are left out must be valid, too
            _check_patches({view: indices for view, indices in patches.items() if view not in views.values()})
        return found


@dataclass(frozen=True)
class Sample:
    """One moment to train from; K = chunk, A = action dimensions.

    Attributes:
        images: View -> (height, width, 3) uint8 RGB, in the policy's order of cameras.
        state: (S,) physical units, in the data set's state convention.
        actions: (K, A) physical units; row 0 is executed first.
        padding: (K,) bool; True rows come after the end of the episode or of its instruction and carry no label.
        instruction: Task in words, never empty.
        episode: Number of the episode in its data set.
        frame: Number of the frame in its episode.
        success: Success label of the episode; None if it has none.
        correction: Whether a person had taken over from a policy.
        grounding: Objects that the instruction names; empty if not known.
        subtask: Name of the step of the task that the action belongs to; empty if not known.
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
        problem = self._problem()
        if problem:
            raise DataError(f"episode {self.episode}, frame {self.frame}: {problem}")

    def _problem(self) -> str:
        """Returns what is wrong with the sample; empty if nothing is."""
        if not self.images:
            return "no image; a sample needs one view at least"
        for view, image in self.images.items():
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                return f"view {view} is {image.dtype} {image.shape}; use (height, width, 3) uint8 RGB"
        if self.state.ndim != 1:
            return f"the state has shape {self.state.shape}; use (S,)"
        if self.actions.ndim != 2 or not len(self.actions):
            return f"the actions have shape {self.actions.shape}; use (K, A)"
        if self.padding.shape != self.actions.shape[:1] or self.padding.dtype != np.bool_:
            return f"the padding mask must be {self.actions.shape[:1]} bool, found {self.padding.dtype} {self.padding.shape}"
        labelled = len(self.padding) - int(np.count_nonzero(self.padding))
        if not labelled or np.count_nonzero(self.padding[:labelled]):
            return "padding belongs at a chunk's end, never at its first row"
        if not _finite(self.state):
            return "the state holds a number that is not finite"
        if not _finite(self.actions[:labelled]):
            return "an action is not finite"
        if not self.instruction.strip():
            return "the instruction is empty"
        longest = len(self.instruction)
        for item in self.grounding:
            for _, end in item.spans:
                if end > longest:
                    return "a grounded span ends after the instruction"
            unknown = [view for view in item.patches if view not in self.images]
            if unknown:
                return f"patches of views that the sample does not have: {', '.join(sorted(unknown))}"
        return ""


def chunk_of(actions: np.ndarray, start: int, length: int) -> Tuple[np.ndarray, np.ndarray]:
    """Cuts a chunk out of an episode and pads it at the end with its last row.

    Args:
        actions: (N, A) actions of one episode.
        start: First row of the chunk.
        length: Number of rows (K).

    Returns:
        ((K, A), (K,) bool, True where padded).

    Raises:
        DataError: `start` is not a row, or K is below 1.
    """
    if not 0 <= start < len(actions) or length < 1:
        raise DataError(f"a chunk of {length} from row {start} of an episode of {len(actions)} rows cannot be cut")
    if start + length <= len(actions):
        return actions[start:start + length].copy(), np.zeros(length, dtype=bool)
    rows: List[int] = [min(start + step, len(actions) - 1) for step in range(length)]
    return actions[rows], np.arange(start, start + length) >= len(actions)
