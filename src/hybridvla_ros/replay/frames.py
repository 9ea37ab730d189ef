"""Second pass: turns messages, in the order of recording, into observations by the sync and the proposer of the live node."""
from __future__ import annotations

import itertools
import re
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Deque, Dict, Iterator, List, Optional, Tuple

import numpy as np

from hybridvla_core.errors import ObservationError
from hybridvla_core.evaluation.replay.rows import DECISION, PERIOD, Frame, RecordedProposal
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_core.policy.proposing.proposer import Proposer
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.status import State
from hybridvla_ros.messages import conversions
from hybridvla_ros.messages.images import to_rgb
from hybridvla_ros.observation.camera_sync import CameraSync, ImageSet
from hybridvla_ros.observation.covered import CoveredImages
from hybridvla_ros.replay import bags
from hybridvla_ros.replay.joints import RecordedArms
from hybridvla_ros.replay.pace import Pace
from hybridvla_ros.replay.scan import Scanned

SAME_STAMP_NS = 1000        # a proposal's stamp went through a float of seconds
KEEP = 64                   # images per view, for observations of recorded proposals
WAITED_S = 0.5            # how long to wait for states that reach up to the images, before the observation counts as missed
NEVER_COVERED = "by their stamps, the arms' states do not reach the images; check the clocks"
LATE_S = 1.0                # a recorded observation that is not complete this long after its stamp never will be
NO_IMAGES = "no images with the stamps of the recorded proposal are in the bag"
CUT_OFF = "the bag ends before what the recorded proposal was made from, or its stamp belongs to another clock"


@dataclass(frozen=True)
class RawImage:
    """A message not decoded yet, because most are never used.

    Attributes:
        raw: Message as stored in the bag.
        topic: Topic it was recorded on.
        path: Path of the bag.
    """

    raw: bags.Raw
    topic: str
    path: Path

    def pixels(self, view: str) -> np.ndarray:
        return to_rgb(bags.message(self.raw, self.topic, self.path), view)


@dataclass
class Misses:
    """Counts how often an observation was due, how often there was none, and why.

    Attributes:
        due: Observations asked for.
        missed: Those of them that could not be made.
        problems: Sentence -> how often it occurred.
        first: Sentence -> when it first occurred, s.
    """

    due: int = 0
    missed: int = 0
    problems: Counter = field(default_factory=Counter)
    first: Dict[str, float] = field(default_factory=dict)

    def miss(self, problem: str, time: float) -> None:
        self.missed += 1
        kind = re.sub(r"-?\d+(\.\d+)?", "#", problem)
        self.problems[kind] += 1
        self.first.setdefault(kind, round(time, 2))


@dataclass
class Observing(Misses):
    """Observations at a rate, and also those of recorded proposals.

    Attributes:
        spreads: Newest minus oldest image of each observation, s.
        decisions: Observations of the recorded proposals.
        remark: The first remark on why images are older than they say.
    """

    spreads: List[float] = field(default_factory=list)
    decisions: Misses = field(default_factory=Misses)
    remark: str = ""


class FrameSource:
    """rate: observations per second of recording, Hz; 0: only `decisions`; inf: every new set of images.

    decisions: recorded proposals to observe for as well. everything: observe also while nobody followed the policy's instruction.
    told: an instruction was given instead of the recorded ones; it is used for recorded proposals too.
    """

    def __init__(self, found: Scanned, policy: PolicyInterface, config: PolicyConfig, robot: RobotConfig, rate: float,
                 decisions: List[RecordedProposal], everything: bool = False, told: bool = False) -> None:
        self._found, self._config, self._everything, self._told = found, config, everything, told
        self._now = found.begin
        between = max(found.streams[f"camera {camera.view}"].usual_interval for camera in config.cameras)
        self._pace = Pace(None if rate == 0.0 else 1.0 / rate, between)
        self.observing = Observing()
        self._decisions: Deque[RecordedProposal] = deque(sorted(decisions, key=lambda proposal: proposal.stamp_ns))
        # What a policy sees before its first command means nothing where no command ever comes.
        self._conventions = {True: config.convention, False: replace(config.convention, first_state=None)}
        self.proposer = Proposer(policy, config, epoch=1, clock=lambda: self._now, monotonic=lambda: self._now)
        views = [camera.view for camera in config.cameras]
        self.sync: CameraSync[RawImage] = CameraSync(views, config.max_camera_spread_s, config.max_observation_age_s)
        self._kept: Dict[str, Deque[Tuple[int, RawImage]]] = {view: deque(maxlen=KEEP) for view in views}
        self._covered = CoveredImages(self.sync, self.proposer)
        self._waiting_since = float("inf")
        self._arms = RecordedArms(robot, found.topics, self.proposer.on_arm_state)
        self._tracks = found.recording.tracks
        self._instructions = deque(found.recording.instructions)

    def __iter__(self) -> Iterator[Frame]:
        topics = self._found.topics
        wanted = [*topics.images, *topics.joints, *topics.grippers]
        if self._config.convention.uses_commands:
            wanted += [topics.proposals, topics.status]
        for record in self._found.read(wanted):
            self._now = max(self._now, record.when)
            while self._instructions and self._instructions[0][0] <= record.when:
                self.proposer.set_instruction(self._instructions.popleft()[1])
            self._take(record)
            yield from self._recorded()
            frame = self._periodic()
            if frame is not None:
                yield frame
        for _ in self._decisions:
            self.observing.decisions.due += 1
            self.observing.decisions.miss(CUT_OFF, self._now - self._found.begin)

    def _take(self, record: bags.Recorded) -> None:
        topic, raw, when, path, publisher = record
        topics = self._found.topics
        if topic in topics.images:
            stamp = bags.header_stamp(raw)
            for view in topics.images[topic]:
                image = RawImage(raw, topic, path)
                self.sync.add(view, stamp, image, arrival_ns=int(when * 1e9))
                kept = self._kept[view]
                if kept and stamp < kept[-1][0]:
                    kept.clear()
                kept.append((stamp, image))
        elif topic in topics.joints or topic in topics.grippers:
            self._arms.take(topic, bags.message(raw, topic, path), when, publisher)
        elif topic == topics.proposals:
            proposal = bags.message(raw, topic, path)
            self.proposer.commands.proposed(proposal.epoch, proposal.sequence,
                                            ((target.name, target.gripper) for target in proposal.targets),
                                            proposal.action_period.to_sec())
        else:
            status = conversions.status_contract(bags.message(raw, topic, path))
            self.proposer.on_commands(status.commanded, status.stamp, status.epoch, status.sequence,
                                      status.state != State.INACTIVE, status.seed)

    def _periodic(self) -> Optional[Frame]:
        """Works like the live loop: when a prediction is due, from the newest set, once the arms' states reach up to it."""
        if not self._pace.looks(self._now) or not self.proposer.instruction:
            return None
        if not self._everything and self._found.recording.span(self._now) is None:
            return None
        newest, problem = self.sync.latest(self._now)
        images = self._covered.choose(newest, self._now) if newest is not None else None
        self.observing.remark = self.observing.remark or self._covered.remark
        if not self._pace.takes(images.stamp_ns * 1e-9) if images is not None else self._now < self._pace.due_at:
            return None
        if newest is not None and images is None:
            self._waiting_since = min(self._waiting_since, self._now)
            if self._now - self._waiting_since < WAITED_S:
                return None
            problem = self._covered.remark or NEVER_COVERED
        self._waiting_since = float("inf")
        self.observing.due += 1
        if images is None:
            self.observing.miss(problem, self._now - self._found.begin)
            self._pace.missed(self._now, 1.0 / self._config.prediction_rate_hz)
            return None
        self._pace.took(self._now, images.stamp_ns * 1e-9)
        return self._frame(images, PERIOD, None)

    def _recorded(self) -> Iterator[Frame]:
        """Yields the observations of recorded proposals, once everything that belongs to them has been read."""
        while self._decisions:
            proposal = self._decisions[0]
            stamp = proposal.stamp_ns * 1e-9
            if self._now < stamp + self._config.max_camera_spread_s or not self.proposer.covers(stamp):
                return
            images = self._pick(proposal)
            if images is None and self._now - stamp < LATE_S:
                return
            self._decisions.popleft()
            if images is None and 0.0 < self._found.begin - stamp < LATE_S:
                continue        # made from what was seen just before recording began
            self.observing.decisions.due += 1
            if images is None:
                self.observing.decisions.miss(NO_IMAGES, self._now - self._found.begin)
                continue
            frame = self._frame(images, DECISION, proposal)
            if frame is not None:
                yield frame

    def _pick(self, proposal: RecordedProposal) -> Optional[ImageSet[RawImage]]:
        """Returns the images whose oldest stamp and spread are the proposal's."""
        begin, end = proposal.stamp_ns, proposal.stamp_ns + int(proposal.spread * 1e9)
        choices = [[entry for entry in queue if begin - SAME_STAMP_NS <= entry[0] <= end + SAME_STAMP_NS]
                   for queue in self._kept.values()]
        if not all(choices):
            return None
        best = min(itertools.product(*choices), key=lambda entries: (
            abs(min(entry[0] for entry in entries) - begin) + abs(max(entry[0] for entry in entries) - end)))
        stamps = [entry[0] for entry in best]
        if abs(min(stamps) - begin) > SAME_STAMP_NS:
            return None
        return ImageSet({view: entry[1] for view, entry in zip(self._kept, best)}, min(stamps),
                        (max(stamps) - min(stamps)) * 1e-9)

    def _frame(self, images: ImageSet[RawImage], kind: str, recorded: Optional[RecordedProposal]) -> Optional[Frame]:
        time = self._now - self._found.begin
        try:
            pixels = {view: image.pixels(view) for view, image in images.messages.items()}
            inference = self._begin(pixels, images, recorded)
        except ObservationError as error:
            (self.observing if kind == PERIOD else self.observing.decisions).miss(str(error), time)
            return None
        if kind == PERIOD:
            self.observing.spreads.append(images.spread)
        stamp = images.stamp_ns * 1e-9
        joints = tuple((track.joints[track.index(stamp)], float(track.openings[track.index(stamp)]))
                       for track in self._tracks)
        return Frame(time, inference, joints, recorded, kind)

    def _begin(self, pixels: Dict[str, Any], images: ImageSet, recorded: Optional[RecordedProposal]) -> Any:
        """Makes the live node's observation.

        A recorded decision may look back further than a live one: its age was judged when it was made, so the clock is set to the
        time of the images.

        Args:
            pixels: (height, width, 3) uint8 RGB of each view.
            images: Stamp and spread of these images.
            recorded: The recorded decision, if the observation is for one.

        Returns:
            The observation, for inference.

        Raises:
            ObservationError: The proposer refuses it, as it would live.
        """
        followed = self._found.recording.span(self._now) is not None
        self.proposer.convention = self._conventions[self._found.commanded and followed]
        if recorded is None:
            return self.proposer.begin(pixels, images.stamp_ns, images.spread)
        now, told = self._now, self.proposer.instruction
        try:
            self._now = min(now, images.stamp_ns * 1e-9 + images.spread)
            if recorded.instruction and recorded.instruction != told and not self._told:
                self.proposer.set_instruction(recorded.instruction)
            return self.proposer.begin(pixels, images.stamp_ns, images.spread)
        finally:
            self._now = now
            if told and self.proposer.instruction != told:
                self.proposer.set_instruction(told)
