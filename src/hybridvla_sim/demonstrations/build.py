"""Makes demonstrations of several tasks in several processes, into one data set; an interrupted run keeps what it has made."""
from __future__ import annotations

import functools
import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from threadpoolctl import threadpool_limits

from hybridvla_core.data.lerobot.layout import NEXT_KEYFRAME, Description
from hybridvla_core.data.lerobot.writer import TRAIN, VALIDATION, DatasetWriter
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import LARGEST_TRAINING_SEED
from hybridvla_core.files import write_text
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.transforms.conventions import DOF_PER_ARM, ActionConvention
from hybridvla_sim.demonstrations import part
from hybridvla_sim.demonstrations.acting import Actor, ActorFactory
from hybridvla_sim.demonstrations.record import ACTED, DRIVEN, SAMPLED, Recorder, Settings
from hybridvla_sim.origin import origin
from hybridvla_sim.pool import in_processes

CHANNELS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
FPS = 10.0


@dataclass(frozen=True)
class Order:
    """The data set to make.

    Attributes:
        tasks: Names of the tasks.
        count: Number of episodes of each task.
        seed: Seed of the first episode of each task; the next episodes count up from it.
        sampled: Share of the episodes that consist of sampled states.
        validation: Share of the episodes that is held out: the last ones of each task.
        settings: Settings that all demonstrations share.
        policy: Digest of the checkpoint that acts in the episodes without sampled states; empty: the expert drives them.
        failures: Whether to write driven episodes in which the expert failed, too.
    """

    tasks: Tuple[str, ...]
    count: int
    seed: int
    sampled: float
    validation: float
    settings: Settings
    policy: str = ""
    failures: bool = False

    def __post_init__(self) -> None:
        if not self.tasks or self.count < 1:
            raise HybridVLAError("demonstrations: name a task at least, and a --count of at least 1")
        if not 0 <= self.seed <= self.seed + self.count - 1 <= LARGEST_TRAINING_SEED:
            raise HybridVLAError(f"--seed {self.seed}: seeds of demonstrations lie in 0 to {LARGEST_TRAINING_SEED}, all of "
                                 "--count; larger ones belong to evaluation")
        if not 0.0 <= self.sampled <= 1.0 or not 0.0 <= self.validation <= 0.5:
            raise HybridVLAError("demonstrations: --sampled lies in 0 to 1 and --validation in 0 to 0.5")

    def jobs(self) -> List[Job]:
        """Returns all episodes, task by task: first those for training, then those for validation."""
        held = int(round(self.count * self.validation))
        found, driven = [], ACTED if self.policy else DRIVEN
        for split in (TRAIN, VALIDATION):
            numbers = range(self.count - held) if split == TRAIN else range(self.count - held, self.count)
            for task in self.tasks:
                for number in numbers:
                    # Spread the sampled episodes evenly among the others, whatever the share.
                    before = int(number * self.sampled)
                    sampled = int((number + 1) * self.sampled) > before
                    seed = self.seed + number
                    found.append(Job(task, seed, SAMPLED if sampled else driven, split, seed - before))
        return found


@dataclass(frozen=True)
class Job:
    """One episode.

    Attributes:
        task: Name of the task.
        seed: Seed of the episode.
        kind: `driven`, `sampled` or `acted`.
        split: Split of the data set, `train` or `validation`.
        turn: Counter of the task's episodes that are not sampled, from the seed of the first one: a policy's paths take turns.
    """

    task: str
    seed: int
    kind: str
    split: str
    turn: int

    @property
    def file(self) -> str:
        """Name of the file of its part."""
        return f"{self.task}-{self.kind}-{self.seed:07d}.npz"


def build(order: Order, folder: Path, convention: ActionConvention, robot: RobotConfig, processes: int = 1,
          progress: Callable[[int], object] = lambda pictures: None, actor: Optional[ActorFactory] = None,
          left_out: Callable[[Job], object] = lambda job: None, present: Callable[[int], object] = lambda episodes: None) -> Path:
    """Makes the data set.

    Args:
        order: The data set to make.
        folder: Folder to create; the parts are stored beside it until it is complete.
        convention: Convention of state and action.
        robot: Robot whose arms move.
        processes: Number of processes that work in parallel; the result does not depend on it.
        progress: Callback, called with the number of pictures of each episode that was made.
        actor: Factory of the actor, called in each process; given together with `order.policy`.
        left_out: Callback, called with each driven episode that is not written because the expert failed in it.
        present: Callback, called with the number of episodes whose parts are there before others are made; called again if some
            of them have to be made anew.

    Returns:
        The folder.

    Raises:
        HybridVLAError: The folder exists, the parts are another order's, a worker died, or the expert failed in all episodes.
        DamagedPart: The disk loses what is written to it.
        OSError: A part cannot be read or written now; all parts are kept.
    """
    if folder.exists():
        raise HybridVLAError(f"{folder}: exists; choose another folder, nothing is overwritten")
    parts = folder.resolve().parent / f".{folder.resolve().name}.parts"
    _claim(parts, order, convention, robot, folder)
    part.remove_partial(parts)
    jobs = order.jobs()
    failed: List[Job] = []
    for last in (False, True):
        missing = [job for job in jobs if not part.looks_whole(parts / job.file)]
        present(len(jobs) - len(missing))
        for pictures in _make(missing, parts, (order.settings, convention, robot, actor), processes):
            progress(pictures)
        try:
            failed = _join(order, jobs, parts, folder, convention, robot)
            break
        except part.DamagedPart:
            if last:
                raise
            for job in jobs:
                part.remove_damaged(parts / job.file)
    for job in failed:
        left_out(job)
    shutil.rmtree(parts)
    return folder


def _join(order: Order, jobs: Sequence[Job], parts: Path, folder: Path, convention: ActionConvention, robot: RobotConfig
          ) -> List[Job]:
    """Joins all parts into one data set. It copies their videos, so it takes little time compared with recording.

    Returns:
        The driven episodes that are left out because the expert failed. Their parts are kept until the end like all others, so
        that a resumed run stays the same run.

    Raises:
        HybridVLAError: The expert failed in all episodes, or a part is damaged.
    """
    settings, arms = order.settings, convention.arms
    names = CHANNELS if len(arms) == 1 else tuple(f"{arm}_{channel}" for arm in arms for channel in CHANNELS)
    grippers = tuple(DOF_PER_ARM * arm + DOF_PER_ARM - 1 for arm in range(len(arms)))
    description = Description(folder.resolve().name, FPS, dict.fromkeys(settings.views, (settings.size, settings.size)), names,
                              names, grippers, NEXT_KEYFRAME, robot.name, json.loads(json.dumps(asdict(convention))),
                              grounded=True, moments=True, grid=settings.grid, subtasks=True)
    failed = []
    with DatasetWriter(folder, description) as out:
        for job in jobs:
            recording, footage = part.read(parts / job.file)
            if recording.success is False and not order.failures:
                failed.append(job)
                continue
            kind = f"acted by {order.policy[:12]}" if job.kind == ACTED else job.kind
            with out.episode(f"{job.task}, seed {job.seed}, {kind}", recording.success, job.split, footage) as episode:
                for number, text in enumerate(recording.texts):
                    episode.add({}, recording.state[number], recording.action[number], text,
                                grounding=recording.grounding[number], same_moment=recording.again[number],
                                subtask=recording.subtasks[number])
        if not out.episodes:
            raise HybridVLAError(f"{folder.name}: the expert failed in all {len(jobs)} episodes, so nothing is written; begin "
                                 "with another --seed, or ask for --sampled states")
        out.finish()
    return failed


def _claim(parts: Path, order: Order, convention: ActionConvention, robot: RobotConfig, folder: Path) -> None:
    """Claims the folder of parts, or checks that it is ours: of this order, convention, robot, code and renderer.

    The number of episodes may differ: each has its own part, independent of the others, so the same order can resume with more
    or fewer.

    Raises:
        HybridVLAError: The parts are not ours.
    """
    decided = hashlib.sha256(repr((convention, robot)).encode()).hexdigest()
    wanted = json.loads(json.dumps({**asdict(order), **origin(), "convention_and_robot": decided}))
    del wanted["count"]
    said = parts / "order.json"
    if not said.is_file():
        write_text(said, json.dumps(wanted, sort_keys=True))
        return
    try:
        found = json.loads(said.read_text(encoding="utf-8"))
    except ValueError:
        found = {}
    others = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if others:
        raise HybridVLAError(f"{parts}: holds parts of another order of {folder.name}, or of another convention or robot, or "
                             f"made by other code or another renderer (not the same: {', '.join(others)}); repeat that one, or "
                             "remove the folder")


Worker = Tuple[Settings, ActionConvention, RobotConfig, Optional[ActorFactory]]
_WORKER: Optional[Tuple[Settings, ActionConvention, RobotConfig, Optional[Actor]]] = None
_RECORDERS: Dict[str, Recorder] = {}


def _start(worker: Worker) -> None:
    global _WORKER
    settings, convention, robot, make_actor = worker
    _WORKER = settings, convention, robot, None if make_actor is None else make_actor()     # once for all tasks


def _start_process(worker: Worker) -> None:
    # Close before the interpreter ends: the graphics library is gone by the time renderers are garbage-collected.
    Finalize(None, _close, exitpriority=0)
    _start(worker)


def _close() -> None:
    """Frees the renderers of the last task's rig."""
    for recorder in _RECORDERS.values():
        recorder.close()
    _RECORDERS.clear()


# With more threads, the last bits of a sum depend on the number of cores, and so do the bytes of the data.
@threadpool_limits.wrap(limits=1, user_api="blas")
def _record(job: Job, parts: Path) -> int:
    """Records one episode into its part and returns its number of pictures. Keeps the rig of the last task."""
    assert _WORKER is not None, "a worker begins with _start"
    settings, convention, robot, actor = _WORKER
    if job.task not in _RECORDERS:
        _close()
        _RECORDERS[job.task] = Recorder(job.task, settings, convention, robot, actor)
    made = _RECORDERS[job.task].record(job.seed, job.kind, job.turn)
    part.write(made, parts / job.file, FPS)
    return len(made.texts) * len(settings.views)


def _make(jobs: Sequence[Job], parts: Path, worker: Worker, processes: int) -> Iterator[int]:
    """Yields the number of pictures of each episode as it is made. No worker is left behind, however this ends."""
    if processes <= 1 or len(jobs) <= 1:
        _start(worker)
        try:
            for job in jobs:
                yield _record(job, parts)
        finally:
            _close()
        return
    yield from in_processes(functools.partial(_record, parts=parts), jobs, processes, _start_process, (worker,),
                            "what was made is kept: start again, with a smaller --processes")
