"""`hybridvla dataset from-bags`: converts recorded bags to a data set, with the sync and the conventions of the live node."""
from __future__ import annotations

import itertools
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import numpy as np

from hybridvla_cli.dataset_parts import bag_episodes, checks
from hybridvla_cli.dataset_parts.labels import DenseLabels, KeyframeLabels
from hybridvla_cli.dataset_parts.no_policy import NoPolicy
from hybridvla_core.configuration import load_file
from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.layout import NEXT_KEYFRAME, NEXT_POSE, Description
from hybridvla_core.data.lerobot.writer import TRAIN, VALIDATION, DatasetWriter, WriteError, check_free, split_of
from hybridvla_core.errors import DataError, HybridVLAError
from hybridvla_core.evaluation.replay.rows import Frame
from hybridvla_core.evaluation.replay.settings import ReplayConfig
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.transforms.conventions import DOF_PER_ARM
from hybridvla_ros.replay import bags, given
from hybridvla_ros.replay.frames import FrameSource
from hybridvla_ros.replay.scan import Scanned, Scanner
from hybridvla_ros.replay.topics import TopicMap, resolve

CHANNELS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
ENDS_ALL = WriteError, bags.TooManyOpen      # errors that are not the current bag's fault
LOGGER = logging.getLogger(__name__)
KEYFRAME_FPS = 1.0      # keyframes have no rate; the videos need one


@dataclass(frozen=True)
class Options:
    """Options from the command line.

    Attributes:
        bags: Bag files, or folders of them.
        output: New folder for the data set.
        policy_config: File of the policy's configuration: cameras, convention and rates.
        robot_config: File of the robot's configuration.
        topics: Topic map file.
        instruction: Instruction that replaces the recorded ones.
        rate: Rows per second if every frame is a row, Hz; None: the policy's rate.
        keyframes_only: Whether only the keyframes themselves become rows.
        everything: Whether to use also the time in which the filter followed nobody.
        keep_failures: Whether to use episodes labelled as failures, too.
        validation: Share of the episodes to hold out.
        seed: Seed that draws the held-out episodes.
        like: Data set whose camera order must be kept.
        scratch: Folder for re-indexed copies of damaged bags.
    """

    bags: Tuple[str, ...]
    output: Path
    policy_config: Path
    robot_config: Path
    topics: Optional[Path] = None
    instruction: str = ""
    rate: Optional[float] = None
    keyframes_only: bool = False
    everything: bool = False
    keep_failures: bool = False
    validation: float = 0.1
    seed: int = 0
    like: Optional[Path] = None
    scratch: Optional[Path] = None


@dataclass
class Plan:
    """One recording that will be used.

    Attributes:
        found: The recording after the first pass.
        told: Episodes and takeovers of the recording.
        images: First image of each view.
    """

    found: Scanned
    told: bag_episodes.Told
    images: Dict[str, np.ndarray]


class FromBags:
    """Writes a data set from bags. Finds every error before the first picture is written, except damage inside a bag."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.config = load_file(PolicyConfig, options.policy_config)
        self.robot = load_file(RobotConfig, options.robot_config)
        self.settings = load_file(ReplayConfig, ROOT / "config/replay/thresholds.yaml")
        default = ROOT / "config/replay" / f"{self.robot.name}.yaml"
        chosen = options.topics or (default if default.is_file() else None)
        self.map = load_file(TopicMap, chosen) if chosen else TopicMap()
        period = self.config.convention.action_period_s
        if period > 0.0 and (options.keyframes_only or options.rate is not None):
            raise HybridVLAError(f"the policy's actions take {period:g} s each, which sets the rate of the rows; leave out "
                                 "--rate and --keyframes")
        self.rate = 1.0 / period if period > 0.0 else (options.rate or self.config.prediction_rate_hz)
        self._flags: List[Tuple[str, str, bool]] = []

    def run(self) -> Dict[str, Any]:
        """Writes the data set.

        Returns:
            The summary: episodes, frames and flags.

        Raises:
            DataError: No episode can be used, or the output folder is not empty.
            HybridVLAError: The disk is full.
        """
        from tqdm import tqdm

        check_free(self.options.output)
        with bags.BagShelf(self.options.scratch) as shelf:
            plans = self._plan(shelf)
            wanted = self._choose(plans)
            self._refuse_nothing(len(wanted))
            train, _ = split_of(len(wanted), self.options.validation, self.options.seed)
            parts = {key: TRAIN if number in set(train) else VALIDATION for number, key in enumerate(wanted)}
            with DatasetWriter(self.options.output, self._description(plans[0])) as out:
                total = round(sum(plan.found.duration for plan in plans) * (2 if VALIDATION in parts.values() else 1), 1)
                with tqdm(total=total, unit="s", unit_scale=True, desc="from-bags", leave=False) as bar:
                    for split in (TRAIN, VALIDATION):
                        for number, plan in enumerate(plans):
                            mine = [index for (who, index), part in parts.items() if who == number and part == split]
                            if mine:
                                self._write(out, plan, mine, split)
                            bar.update(min(plan.found.duration, max(total - bar.n, 0.0)))
                self._refuse_nothing(out.episodes)
                if not out.trains:
                    self._flags.append((out.description.name, f"no episode is left for training: all {out.episodes} are held "
                                                              "out for validation; --validation 0 uses them for training", True))
                for flag in self._flags:
                    out.provenance.flag(*flag)
                out.finish()
                return self._summary(out)

    # First pass ----------------------------------------------------------------------------------------------------

    def _plan(self, shelf: bags.BagShelf) -> List[Plan]:
        reference = self._reference()
        opened: List[bags.BagFile] = []
        notes: List[str] = []
        paths = given.expand(self.options.bags, notes)
        for note in notes:
            LOGGER.warning("%s", note)
        for path in paths:
            try:
                opened.append(shelf.open(path))
            except ENDS_ALL:
                raise
            except Exception as error:  # noqa: BLE001  # one bad bag, however bad, never ends the run
                self._flag(path.name, error)
        scanner = Scanner(self.config, self.robot, self.settings, self.options.instruction)
        plans: List[Plan] = []
        for files in given.recordings(opened):
            name = files[0].path.name if len(files) == 1 else f"{files[0].path.name} and {len(files) - 1} more"
            try:
                topics = resolve(self.config, self.robot, self.map, {
                    topic: kind for part in files for topic, kind in part.topics.items()}, str(files[0].path))
                found = scanner.scan(name, files, topics)
                told = bag_episodes.read(found)
                checks.refuse_unfit(found, self.robot)
                checks.refuse_slow(found, self.config.convention)
                plans.append(Plan(found, told, self._first_images(found)))
            except ENDS_ALL:
                raise
            except Exception as error:  # noqa: BLE001  # as above
                self._flag(name, error)
        signatures = [checks.signature(plan.images) for plan in plans]
        swapped = checks.swapped_views(signatures, reference)
        for number, reason in swapped.items():
            self._flags.append((plans[number].found.name, reason, False))
        return [plan for number, plan in enumerate(plans) if number not in swapped]

    def _first_images(self, found: Scanned) -> Dict[str, np.ndarray]:
        source = self._source(found)
        for frame in source:
            return dict(frame.inference.observation.images)
        problems = "; ".join(source.observing.problems) or "the filter followed nobody's instruction (--everything takes all)"
        raise DataError(f"no observation can be made from it: {problems}")

    def _reference(self) -> Dict[str, np.ndarray]:
        """Returns the signatures of the views of another data set."""
        if self.options.like is None:
            return {}
        from hybridvla_core.data.lerobot.reader import LeRobotDataset

        other = LeRobotDataset(self.options.like)
        views = [camera.view for camera in self.config.cameras]
        if list(other.description.views) != views:
            raise DataError(f"{self.options.like}: its views are {', '.join(other.description.views)}, the policy's "
                            f"{', '.join(views)}")
        firsts = [checks.signature(other.sample(episode.first).images) for episode in other.episodes[:32]]
        other.close()
        return {view: np.median([each[view] for each in firsts], axis=0) for view in views}

    def _choose(self, plans: List[Plan]) -> List[Tuple[int, int]]:
        """Returns (plan, episode) of each episode that will be written."""
        wanted = []
        for number, plan in enumerate(plans):
            for index, episode in enumerate(plan.told.episodes):
                if episode.label in ("discard", "aborted"):
                    self._flags.append((episode.name, f"labelled {episode.label}", False))
                elif episode.label == "failure" and not self.options.keep_failures:
                    self._flags.append((episode.name, "labelled failure (--keep-failures takes it)", False))
                else:
                    wanted.append((number, index))
            for doubt in checks.doubts(plan.found, self.config.convention):
                self._flags.append((plan.found.name, doubt, True))
        return wanted

    # Second pass ---------------------------------------------------------------------------------------------------

    def _write(self, out: DatasetWriter, plan: Plan, mine: List[int], split: str) -> None:
        frames, missing = iter(self._source(plan.found)), dict.fromkeys(mine)
        try:
            for index, group in itertools.groupby(frames, lambda frame: plan.told.at(frame.inference.stamp)):
                if index in mine:
                    missing.pop(index, None)
                    self._episode(out, plan, plan.told.episodes[index], group, split)
        except ENDS_ALL:
            raise
        except Exception as error:  # noqa: BLE001  # as in the first pass
            self._flag(plan.found.name, error)
        for index in missing:
            self._flag(plan.told.episodes[index].name, DataError("no frame of it can be read"))

    def _episode(self, out: DatasetWriter, plan: Plan, episode: bag_episodes.BagEpisode, frames: Iterator[Frame],
                 split: str) -> None:
        labels = self._labels(plan.found, episode)
        try:
            with out.episode(episode.name, episode.success, split) as writer:
                for frame in frames:
                    action, seen = labels.of(frame), frame.inference.observation
                    if action is not None:
                        writer.add(dict(seen.images), seen.state, action, seen.instruction,
                                   plan.told.corrected(seen.stamp_ns * 1e-9))
                labels.finish()
        except ENDS_ALL:
            raise
        except Exception as error:  # noqa: BLE001  # as in the first pass
            self._flag(episode.name, error)

    def _labels(self, found: Scanned, episode: bag_episodes.BagEpisode) -> Union[DenseLabels, KeyframeLabels]:
        convention = self.config.convention
        # The rows do not lead to what follows the episode in its bag, such as a reset or the next demonstration.
        recording = replace(found.motion(convention), until=episode.end)
        if self.options.everything:        # the filter did not send what moved the arms while it followed nobody
            recording = replace(recording, engaged=None, sent=None)
        if convention.action_period_s > 0.0:
            return DenseLabels(recording, convention)
        return KeyframeLabels(recording, convention, self.settings.motion, every=not self.options.keyframes_only)

    def _source(self, found: Scanned) -> FrameSource:
        return FrameSource(found, NoPolicy(self.config), self.config, self.robot, self.rate, [], self.options.everything)

    def _description(self, plan: Plan) -> Description:
        convention = self.config.convention
        names = tuple(f"{arm}_{channel}" for arm in convention.arms for channel in CHANNELS)
        dense, keys = convention.action_period_s > 0.0, self.options.keyframes_only
        shapes = {camera.view: plan.images[camera.view].shape for camera in self.config.cameras}
        views = {view: (shape[0], shape[1]) for view, shape in shapes.items()}
        return Description(self.options.output.resolve().name, KEYFRAME_FPS if keys else round(self.rate, 6), views, names, names,
                           tuple(DOF_PER_ARM * arm + 6 for arm in range(len(convention.arms))),
                           NEXT_POSE if dense or keys else NEXT_KEYFRAME, self.robot.name,
                           json.loads(json.dumps(asdict(convention))))

    def _refuse_nothing(self, episodes: int) -> None:
        """Raises DataError that says why, if there is nothing to write."""
        if not episodes:
            raise DataError(f"{self.options.output}: no episode can be used: " + "; ".join(
                f"{episode}: {reason}" for episode, reason, kept in self._flags if not kept)[:1000])

    def _flag(self, episode: str, error: Exception) -> None:
        text = str(error) if isinstance(error, HybridVLAError) else f"cannot be read ({type(error).__name__}: {error})"
        self._flags.append((episode, " ".join(text.split()), False))

    def _summary(self, out: DatasetWriter) -> Dict[str, Any]:
        kept = out.provenance.episodes
        return {"dataset": str(self.options.output), "episodes": out.episodes, "frames": out.frames,
                "validation_episodes": sum(entry["split"] == VALIDATION for entry in kept),
                "success": sum(entry["success"] is True for entry in kept),
                "corrections": sum(entry["corrections"] for entry in kept), "labels": out.description.labels,
                "flagged": out.provenance.flagged, "statistics": layout.STATISTICS}
