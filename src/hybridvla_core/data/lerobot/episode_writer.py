"""Writer of the frames of one episode of a LeRobotDataset v3."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np

from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.footage import Footage, FootageWriter
from hybridvla_core.data.lerobot.layout import Description
from hybridvla_core.data.lerobot.statistics import ImageHistogram
from hybridvla_core.data.sample import GroundedObject
from hybridvla_core.errors import DataError


class EpisodeWriter:
    """Writer of one episode's frames: pictures go to disk at once, numbers when the episode ends."""

    def __init__(self, folder: Path, description: Description, number: int,
                 footage: Optional[Mapping[str, Footage]] = None) -> None:
        chunk, file = layout.place(number)
        self._description, self._footage = description, footage
        self._paths = {view: folder / layout.VIDEO.format(video_key=layout.IMAGE_PREFIX + view, chunk_index=chunk,
                                                          file_index=file) for view in description.views}
        self._shots = FootageWriter(self._paths, description.views, description.fps)
        self.states: List[np.ndarray] = []
        self.actions: List[np.ndarray] = []
        self.instructions: List[str] = []
        self.corrections: List[bool] = []
        self.groundings: List[str] = []
        self.moments: List[int] = []
        self.subtasks: List[str] = []

    @property
    def length(self) -> int:
        return len(self.states)

    def add(self, images: Dict[str, np.ndarray], state: np.ndarray, action: np.ndarray, instruction: str,
            correction: bool = False, grounding: Sequence[GroundedObject] = (), same_moment: bool = False,
            subtask: str = "") -> None:
        """Adds one frame.

        Args:
            images: View -> (h, w, 3) uint8 RGB, all views of the description; none if the episode has footage.
            state: (S,) physical units.
            action: (A,) physical units; the action that follows this frame.
            instruction: Task in words.
            correction: Whether a person had taken over.
            grounding: Named objects, if known.
            same_moment: Whether the frame repeats the one before it, with another sentence.
            subtask: Step of the task that the action belongs to, if known.

        Raises:
            DataError: A shape or number does not fit; the message names the frame.
        """
        frame, wanted = f"frame {self.length}", self._description
        for name, values, names in (("state", state, wanted.state_names), ("action", action, wanted.action_names)):
            if np.shape(values) != (len(names),):
                raise DataError(f"{frame}: the {name} has shape {np.shape(values)}, the data set {len(names)} channels")
            if not np.isfinite(values).all():
                raise DataError(f"{frame}: the {name} holds a number that is not finite")
        if not instruction.strip():
            raise DataError(f"{frame}: no instruction; say what the robot was doing")
        if same_moment and (not self.states or not np.array_equal(self.states[-1], np.asarray(state, dtype=np.float32))):
            raise DataError(f"{frame}: shows no moment of the frame before it: "
                            + ("its state is another" if self.states else "there is none"))
        if self._footage is None:
            if set(images) != set(wanted.views):
                raise DataError(f"{frame}: views are {', '.join(images) or 'none'}, the data set has {', '.join(wanted.views)}")
            for view, image in images.items():
                if image.shape != (*wanted.views[view], 3):
                    raise DataError(f"{frame}: view {view} is {image.shape}, the data set has {(*wanted.views[view], 3)}")
            self._shots.add(images)
        elif images:
            raise DataError(f"{frame}: the episode's pictures are encoded already; give none")
        self.states.append(np.asarray(state, dtype=np.float32))
        self.actions.append(np.asarray(action, dtype=np.float32))
        self.instructions.append(" ".join(instruction.split()))
        self.corrections.append(bool(correction))
        self.groundings.append(json.dumps([item.as_json() for item in grounding]))
        self.subtasks.append(subtask)
        self.moments.append((self.moments[-1] if self.moments else -1) + (not same_moment))

    def close(self) -> None:
        """Finishes the videos.

        Raises:
            DataError: The footage has other views, or another number of frames.
        """
        if self._footage is None:
            self._shots.close()
            return
        for view, path in self._paths.items():
            if view not in self._footage or self._footage[view].frames != self.length:
                raise DataError(f"the footage has no {self.length} frames of view {view}, as the episode has")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._footage[view].video)

    def histograms(self) -> Dict[str, ImageHistogram]:
        """Returns view -> histogram of some of its pictures."""
        if self._footage is None:
            return self._shots.histograms()
        return {view: self._footage[view].histogram for view in self._paths}

    def drop(self) -> None:
        """Removes the files on disk."""
        self._shots.drop()
