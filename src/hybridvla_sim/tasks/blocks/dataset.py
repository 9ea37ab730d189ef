"""A data set of sampled world states: picture, instruction, the expert's next keyframe, and where the named objects are."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from hybridvla_core.data.lerobot.layout import NEXT_KEYFRAME, Description
from hybridvla_core.data.lerobot.writer import TRAIN, VALIDATION, DatasetWriter
from hybridvla_core.data.sample import GroundedObject
from hybridvla_sim.pool import in_processes
from hybridvla_sim.tasks.blocks.expert import PHASES, WorldState, expert_labels
from hybridvla_sim.tasks.blocks.pictures import SceneCamera
from hybridvla_sim.tasks.blocks.sampler import sample_state
from hybridvla_sim.tasks.blocks.task import instruction, instructions

SIZE, GRID = 128, 8
#: Least share of a patch that an object must cover for the patch to show it.
SHOWN = 0.12
#: Largest number of frames that are stored as one episode; the states in it are independent of each other.
EPISODE = 50
NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
#: What the expert's labels mean.
CONVENTION = {"arms": ["arm"], "translation": "delta_base_frame", "rotation": "absolute_euler_xyz",
              "rotation_reference_xyzw": [1.0, 0.0, 0.0, 0.0], "gripper_sense": "one_is_open", "delta_base": "measured",
              "action_period_s": 0.0, "state_source": "measured"}
Row = Dict[str, np.ndarray]


def write_dataset(folder: Path, frames: int, seed: int, labels: int = 1, validation: float = 0.1, even_phases: bool = False,
                  progress: Callable[[int], object] = lambda count: None, processes: int = 1) -> Path:
    """Writes a data set. It is the same for any number of processes.

    Args:
        folder: Folder to create.
        frames: Number of frames, each a picture with an instruction.
        seed: Seed of the whole data set.
        labels: Number of instructions per picture, in consecutive frames; capped at the number of instructions.
        validation: Share of the episodes that are for validation.
        even_phases: Whether the phases that a picture allows are equally likely, instead of the instructions: while the gripper
            holds a block, most instructions ask for another one.
        progress: Callback, called with the number of frames written.
        processes: Number of processes that render pictures in parallel.

    Returns:
        The folder.
    """
    made_with = {"task": "blocks", "frames": frames, "labels": labels, "seed": seed, "validation": validation,
                 "even_phases": even_phases}
    labels = min(labels, len(instructions()))
    episodes = max(2, -(-frames // (EPISODE - EPISODE % labels)))
    held = max(1, int(episodes * validation + 1e-9))
    description = Description(folder.resolve().name, 10.0, {"front": (SIZE, SIZE)}, NAMES, NAMES, (6,), NEXT_KEYFRAME, "sim_fr3",
                              CONVENTION, grounded=True, moments=True, grid=GRID, subtasks=True)
    drawing = Drawing(seed, -(-frames // episodes), labels, even_phases)
    with DatasetWriter(folder, description) as out:
        out.provenance.made_with = made_with
        for number, rows in enumerate(_parts(drawing, episodes, processes)):
            split = VALIDATION if number >= episodes - held else TRAIN
            with out.episode(f"blocks, seed {seed}, sampled states, part {number}", None, split) as episode:
                shown: Optional[Row] = None
                for row, label in rows:
                    text = instruction(*divmod(label, 4))
                    episode.add({"front": row["images"]}, row["state"], row["target"][label], text,
                                grounding=_named(row, text, label), same_moment=row is shown,
                                subtask=PHASES[int(row["phase"][label])])
                    shown = row
                    progress(1)
        out.finish()
    return folder


@dataclass(frozen=True)
class Drawing:
    """What an episode is drawn from: the data set's `seed`, the number of `frames`, and how instructions are chosen."""

    seed: int
    frames: int
    labels: int
    even_phases: bool


#: Camera and drawing of this process, set when it starts to draw.
_CAMERAS: List[SceneCamera] = []
_DRAWINGS: List[Drawing] = []


def _parts(drawing: Drawing, episodes: int, processes: int) -> Iterator[List[Tuple[Row, int]]]:
    """Yields the frames of each episode, in order."""
    if processes > 1:
        yield from in_processes(_part, range(episodes), processes, _start, (drawing,), "start again, with fewer `workers`")
        return
    _start(drawing)
    try:
        for number in range(episodes):
            yield _part(number)
    finally:
        _CAMERAS.pop().close()


def _start(drawing: Drawing) -> None:
    _DRAWINGS[:], _CAMERAS[:] = [drawing], [SceneCamera(SIZE)]


def _part(number: int) -> List[Tuple[Row, int]]:
    """Returns (row, label) of each frame of an episode; depends on the seed and the number alone."""
    (drawing,), (camera,) = _DRAWINGS, _CAMERAS
    return list(_rows(np.random.default_rng([drawing.seed, number]), camera, drawing))


def _rows(rng: np.random.Generator, camera: SceneCamera, drawing: Drawing) -> Iterator[Tuple[Row, int]]:
    found = 0
    while found < drawing.frames:
        state = sample_state(rng)
        if state is None:
            continue
        camera.randomise(rng)
        if camera.pose(state):
            row = label_row(state, *camera.pair())
            for label in _chosen(rng, row, drawing.labels, drawing.even_phases)[:drawing.frames - found]:
                yield row, int(label)
                found += 1


def label_row(state: WorldState, image: np.ndarray, classes: np.ndarray) -> Row:
    """Labels a picture for every instruction, block * 4 + pad.

    Args:
        state: World state that the picture shows.
        image: Picture (S, S, 3) uint8.
        classes: Class of each pixel, (h, w): 0 other, 1-4 blocks, 5-8 pads, 9 robot.

    Returns:
        `images` and `seg` as given; `block_pos` (4, 3) m, `block_yaw` (4,) rad, `pad_pos` (4, 2) m; `state` (7,): x, y, z (m),
        roll, pitch, yaw (rad), opening; `target` (16, 7), the expert's actions, and `phase` (16,), its phases.
    """
    targets, phases = expert_labels(state)
    numbers = np.concatenate([state.tool, [0.0, 0.0, state.yaw, state.opening]]).astype(np.float32)
    return {"images": image, "seg": classes, "block_pos": state.block_pos.astype(np.float32),
            "block_yaw": state.block_yaw.astype(np.float32), "pad_pos": state.pad_xy.astype(np.float32), "state": numbers,
            "target": targets, "phase": phases}


def _chosen(rng: np.random.Generator, row: Row, labels: int, even_phases: bool) -> np.ndarray:
    if not even_phases:
        return rng.permutation(len(instructions()))[:labels]
    share = 1.0 / np.bincount(row["phase"])[row["phase"]]
    return rng.choice(len(share), labels, replace=False, p=share / share.sum())


def _named(row: Row, text: str, label: int) -> List[GroundedObject]:
    """Returns the named block and the named pad."""
    block, pad = divmod(label, 4)
    classes = row["seg"]
    cells = classes.reshape(GRID, classes.shape[0] // GRID, GRID, classes.shape[1] // GRID)
    found = []
    for word, number, place, yaw in (("block", 1 + block, row["block_pos"][block], float(row["block_yaw"][block])),
                                     ("pad", 5 + pad, np.append(row["pad_pos"][pad], 0.0), None)):
        end = text.index(f" {word}") + 1 + len(word)
        begin = text.rindex("the ", 0, end)
        covered = (cells == number).mean(axis=(1, 3)).ravel()
        found.append(GroundedObject(((begin, end),), {"front": np.flatnonzero(covered >= SHOWN)}, place, yaw, 4))
    return found
