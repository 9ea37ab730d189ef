"""Names and templates of LeRobotDataset v3, and the additional metadata of our data sets."""
from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from hybridvla_core.errors import DataError

VERSION, OLD_VERSION = "v3.0", "v2.1"
IMAGE_PREFIX = "observation.images."
STATE, ACTION = "observation.state", "action"
SUCCESS, CORRECTION, GROUNDING, MOMENT, SUBTASK = "success", "correction", "grounding", "moment", "subtask"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
OURS = "meta/hybridvla.json"                    # metadata that LeRobot has no place for; other readers ignore it
STATISTICS = "meta/dataset_statistics.json"     # the same file as in a checkpoint folder
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNK_FILES = 1000
NEXT_POSE, NEXT_KEYFRAME = "next_pose", "next_keyframe"
SUCCESS_VALUES = {-1: None, 0: False, 1: True}
_OF_A_TASK = re.compile(r"(\w+), seed \d+, ")


@dataclass(frozen=True)
class Description:
    """Description of a data set's content; the same for all of its episodes.

    Attributes:
        name: Key of its statistics.
        fps: Frames per second.
        views: View -> (height, width) px, in the policy's order.
        state_names: One name per channel of the state.
        action_names: One name per channel of an action.
        grippers: Channels of an action that are decided, not measured.
        labels: `next_pose` (rows of consecutive frames make a chunk) or `next_keyframe` (each row leads to the next
            keyframe, so consecutive rows cannot make a chunk).
        robot: Name of the robot.
        convention: Action convention, key by key; None if the source states none.
        grounded: Whether frames carry grounding.
        grid: Patches per row and per column of the encoder for which the grounding counts patches; 0: not stated.
        moments: Whether rows have the number of the moment that they show. Neighbouring rows with the same number share
            pictures and state and differ in sentence and action. Without numbers, every row is its own moment.
        subtasks: Whether rows name the step of the task that their action belongs to.
    """

    name: str
    fps: float
    views: Mapping[str, Tuple[int, int]]
    state_names: Tuple[str, ...]
    action_names: Tuple[str, ...]
    grippers: Tuple[int, ...] = ()
    labels: str = NEXT_POSE
    robot: str = "unknown"
    convention: Optional[Mapping[str, Any]] = None
    grounded: bool = False
    moments: bool = False
    grid: int = 0
    subtasks: bool = False

    def __post_init__(self) -> None:
        if not self.name or not self.views or not self.state_names or not self.action_names:
            raise DataError("a data set needs a name, a view at least, and names of state and action channels")
        if not 0.0 < self.fps <= 1000.0:
            raise DataError(f"data set {self.name}: fps is {self.fps}; use a rate above 0")
        if self.labels not in (NEXT_POSE, NEXT_KEYFRAME):
            raise DataError(f"data set {self.name}: labels is {self.labels!r}; use {NEXT_POSE} or {NEXT_KEYFRAME}")
        if any(not 0 <= channel < len(self.action_names) for channel in self.grippers):
            raise DataError(f"data set {self.name}: a gripper channel lies outside the {len(self.action_names)} of an action")
        if self.moments and self.labels != NEXT_KEYFRAME:
            raise DataError(f"data set {self.name}: rows that share a moment make no chunk; with moments, labels are "
                            f"{NEXT_KEYFRAME}")

    def features(self) -> Dict[str, Any]:
        """Returns the `features` of info.json."""
        result: Dict[str, Any] = {}
        for view, (height, width) in self.views.items():
            result[IMAGE_PREFIX + view] = {
                "dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
                "info": {"video.height": height, "video.width": width, "video.codec": "h264",
                         "video.pix_fmt": pixel_format(height, width), "video.is_depth_map": False,
                         "video.fps": self.fps, "video.channels": 3, "has_audio": False}}
        result[STATE] = {"dtype": "float32", "shape": [len(self.state_names)], "names": list(self.state_names)}
        result[ACTION] = {"dtype": "float32", "shape": [len(self.action_names)], "names": list(self.action_names)}
        result[SUCCESS] = {"dtype": "int64", "shape": [1], "names": None}
        result[CORRECTION] = {"dtype": "bool", "shape": [1], "names": None}
        if self.grounded:
            result[GROUNDING] = {"dtype": "string", "shape": [1], "names": None}
        if self.moments:
            result[MOMENT] = {"dtype": "int64", "shape": [1], "names": None}
        if self.subtasks:
            result[SUBTASK] = {"dtype": "string", "shape": [1], "names": None}
        result["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index"):
            result[name] = {"dtype": "int64", "shape": [1], "names": None}
        return result

    def same_kind(self, other: Description) -> str:
        """Returns why rows of `other` cannot be combined with ours; empty if they can."""
        for key in ("fps", "state_names", "action_names", "grippers", "labels", "convention", "grid"):
            if getattr(self, key) != getattr(other, key):
                return f"{key} is {getattr(other, key)} there and {getattr(self, key)} here"
        if list(self.views.items()) != list(other.views.items()):
            return f"views are {dict(other.views)} there and {dict(self.views)} here (their order counts)"
        return ""


@dataclass
class Provenance:
    """Content of `meta/hybridvla.json` besides the description.

    Attributes:
        episodes: One mapping per episode: source, success, corrections, notes.
        flagged: One mapping for each left out or doubtful episode: episode (its source), reason, kept.
        made_with: Keys of the recipe's `demonstrations` that the set was drawn by; empty for any other set.
    """

    episodes: List[Dict[str, Any]] = field(default_factory=list)
    flagged: List[Dict[str, Any]] = field(default_factory=list)
    made_with: Dict[str, Any] = field(default_factory=dict)

    def flag(self, episode: str, reason: str, kept: bool) -> None:
        """Records what is wrong with an episode."""
        self.flagged.append({"episode": episode, "reason": reason, "kept": kept})


def tasks_named(episodes: Sequence[Mapping[str, Any]]) -> Tuple[str, ...]:
    """Returns the simulated tasks that a data set was made for, from the sources of its episodes: `TASK, seed N, ...`.

    Args:
        episodes: Episodes of `Provenance`.

    Returns:
        The tasks, sorted; none if any episode comes from elsewhere, because the sources are then incomplete.
    """
    found = [_OF_A_TASK.match(str(episode.get("source", ""))) for episode in episodes]
    return tuple(sorted({match.group(1) for match in found if match})) if found and all(found) else ()


def pixel_format(height: int, width: int) -> str:
    """Returns the pixel format: half the colour resolution if the size allows it."""
    return "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"


def place(index: int) -> Tuple[int, int]:
    """Returns (chunk, file) of the n-th file."""
    return divmod(index, CHUNK_FILES)


def read_json(path: Path, what: str) -> Dict[str, Any]:
    """Reads a JSON file of a data set.

    Args:
        path: Path of the file.
        what: Name of the file in messages.

    Returns:
        Its mapping.

    Raises:
        DataError: The file is missing, cannot be read, or holds no mapping.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {what} cannot be read ({error.strerror}); this is not a complete data set") from error
    except ValueError as error:
        raise DataError(f"{path}: {what} is damaged ({error}); make the data set again") from error
    if not isinstance(data, dict):
        raise DataError(f"{path}: {what} holds {type(data).__name__} and not a mapping")
    return data
