"""First pass over a recording: motion, instructions, recorded proposals, and whether every stream is whole."""
from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import numpy as np

from hybridvla_core.errors import ObservationError
from hybridvla_core.evaluation.replay.health import NameWatch, StreamHealth
from hybridvla_core.evaluation.replay.rows import RecordedProposal
from hybridvla_core.evaluation.replay.settings import ReplayConfig
from hybridvla_core.evaluation.replay.track import Track
from hybridvla_core.evaluation.replay.truth import RecordedMotion
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.status import SafetyStatus, State
from hybridvla_core.transforms.conventions import ActionConvention
from hybridvla_ros.messages import conversions
from hybridvla_ros.replay import bags, reading
from hybridvla_ros.replay.joints import RecordedArms
from hybridvla_ros.replay.topics import Topics

if TYPE_CHECKING:
    from hybridvla.msg import ActionProposal

FOLLOWING = (State.ACTIVE, State.HOLDING)
STATUS_GAP_S = 1.0          # a longer silence of the status ends an engaged span
ACTION_KIND = 0


@dataclass
class Scanned:
    """One recording after the first pass.

    Attributes:
        name: Name of the recording.
        files: Its files, in order.
        topics: Topics that are read.
        begin: Time of the first message, s.
        duration: Duration of the recording, s.
        recording: What the arms did, and what was asked for.
        streams: How cameras and joint states came, by name.
        proposals: Recorded proposals.
        infos: View -> (fx, fy, cx, cy, width), px.
        commands: Tracks of what was sent to the arms while the filter followed somebody, where the status tells.
        commanded: Whether the status tells of an executed proposal, so that at some time there is a last command.
        notes: What a reader should know.
        stamps: Which stamps count (reading.STAMPS).
        left_out: What the first pass did not hand on.
    """

    name: str
    files: Sequence[bags.BagFile]
    topics: Topics
    begin: float
    duration: float
    recording: RecordedMotion
    streams: Dict[str, StreamHealth]
    proposals: List[RecordedProposal] = field(default_factory=list)
    infos: Dict[str, Tuple[float, ...]] = field(default_factory=dict)
    commands: List[Track] = field(default_factory=list)
    commanded: bool = False
    notes: List[str] = field(default_factory=list)
    stamps: str = reading.HEADER
    left_out: reading.LeftOut = field(default_factory=reading.LeftOut)

    def read(self, wanted: Sequence[str]) -> Iterator[bags.Recorded]:
        """Yields the messages of all files, one after the other, as every pass reads them."""
        return reading.read(self.files, self.topics, wanted, self.stamps, self.left_out)

    def motion(self, convention: ActionConvention) -> RecordedMotion:
        """Returns the motion by which actions of a convention are judged, and from which they are made.

        That is the measured motion, with what was sent to the arms where the bag tells; for deltas on the last command, only what
        was sent.
        """
        if convention.delta_base == "commanded" and self.commands:
            return RecordedMotion(self.commands, self.recording.instructions, self.recording.engaged)
        return replace(self.recording, sent=self.commands or None)

    def uncommanded(self, convention: ActionConvention) -> str:
        """Says that a policy uses its last command but the recording has none; empty where nothing is missing."""
        if self.commanded or not convention.uses_commands:
            return ""
        what = [*(["the states"] if convention.state_source == "last_command" else []),
                *(["the bases of the deltas"] if convention.delta_base == "commanded" else [])]
        return (f"the bag holds no command that a filter executed: {' and '.join(what)} are the measured "
                "poses and not the last commands")


class Scanner:
    """`policy`, `robot`: configurations. instruction: instead of the recorded ones. stamps: which count (reading.STAMPS)."""

    def __init__(self, policy: PolicyConfig, robot: RobotConfig, settings: ReplayConfig, instruction: str = "",
                 stamps: str = reading.HEADER) -> None:
        self._policy, self._robot, self._settings, self._instruction = policy, robot, settings, instruction
        self._stamps = stamps

    def scan(self, name: str, files: Sequence[bags.BagFile], topics: Topics) -> Scanned:
        """Scans a recording. Raises BagError for damage and ObservationError for a recording without any instruction."""
        rules, begin = self._settings.streams, min(opened.begin for opened in files)
        duration = max(opened.end for opened in files) - begin
        tracks = {arm.name: Track(arm.name, arm.dof) for arm in self._robot.arms}
        streams = {f"camera {view}": StreamHealth(f"camera {view}", rules.camera_max_gap_s, rules.camera_min_rate_hz, rules)
                   for views in topics.images.values() for view in views}
        streams.update({f"joints {arm}": StreamHealth(f"joints of arm {arm}", rules.joints_max_gap_s,
                                                      rules.joints_min_rate_hz, rules) for arm in tracks})
        order = list(self._policy.convention.arms)
        found = Scanned(name, files, topics, begin, duration, RecordedMotion([tracks[arm] for arm in order]), streams,
                        notes=[f"{opened.path.name}: {note}" for opened in files for note in opened.notes] + list(topics.notes),
                        stamps=self._stamps)
        watches = {arm.name: NameWatch(arm.name, arm.joint_names, streams[f"joints {arm.name}"])
                   for arm in self._robot.arms}
        arms = RecordedArms(self._robot, topics, lambda state, stamp: tracks[state.name].add(
            stamp, state.pose, state.gripper, state.joint_positions))
        reader = _Reader(found, arms, watches, {arm: Track(arm, 0) for arm in order}, bool(self._instruction))
        for record in found.read([*topics.images, *topics.camera_info, *topics.joints, *topics.grippers, topics.instruction,
                                  topics.proposals, topics.status]):
            reader.take(record)
        self._finish(found, reader)
        return found

    def _finish(self, found: Scanned, reader: _Reader) -> None:
        motion = self._settings.motion
        found.notes += found.left_out.notes()
        for topic, (when, text) in found.left_out.foreign.items():
            for view in found.topics.images.get(topic, ()):
                found.streams[f"camera {view}"].event("publishers", when - found.begin, f"camera {view}: {text}; one is read")
        for arm, problems in reader.arms.problems(found.begin).items():
            for kind, text in problems.items():
                found.streams[f"joints {arm}"].event(kind, 0.0, text)
        if self._stamps == reading.RECORDING and found.proposals:
            found.notes.append("the recorded proposals are left out: they name their images by stamps that are not used here")
            found.proposals = []
        for stream in found.streams.values():
            stream.finish(found.duration)
        if self._instruction:
            found.recording.instructions = [(-math.inf, " ".join(self._instruction.split()))]
        if not found.recording.instructions:
            raise ObservationError(f"{found.name}: the bag holds no instruction; say what the robot was doing with "
                                   "--instruction, or name its topic in a topic map (--topics)")
        for track in found.recording.tracks:
            if len(track) < 3:
                raise ObservationError(f"{found.name}: the bag holds fewer than three usable joint states of arm "
                                       f"{track.name}: {reader.arms.unusable(track.name)}")
            track.finish(motion)
            if track.dropped:
                found.notes.append(f"{track.dropped} joint states of arm {track.name} go back in time and are left out")
            if not track.gripper_known:
                found.notes.append(f"the gripper of arm {track.name} is never read: it counts as open wherever it is compared")
        found.commanded = set(reader.commands) <= reader.executed
        lack = found.uncommanded(self._policy.convention)
        found.notes += [lack] if lack else []
        found.recording.engaged = reader.engaged() if reader.saw_status else None
        commands = list(reader.commands.values())
        if commands and all(len(track) > 2 for track in commands):
            for track, measured in zip(commands, found.recording.tracks):
                track.finish(motion)
                track.grip_like(measured)
            found.commands = commands


class _Reader:
    """Takes one message after the other."""

    def __init__(self, found: Scanned, arms: RecordedArms, watches: Mapping[str, NameWatch], commands: Dict[str, Track],
                 told: bool) -> None:
        self._found, self.arms, self._watches, self.commands, self._told = found, arms, watches, commands, told
        self.saw_status = False
        self.executed: Set[str] = set()
        self._spans: List[Tuple[float, float]] = []
        self._following: Optional[float] = None
        self._status_at = -math.inf

    def take(self, record: bags.Recorded) -> None:
        topic, raw, when, path, publisher = record
        found, topics = self._found, self._found.topics
        time = when - found.begin
        if topic in topics.images:
            stamp = bags.header_stamp(raw) * 1e-9
            for view in topics.images[topic]:
                found.streams[f"camera {view}"].add(time, stamp)
        elif topic in topics.joints:
            message = bags.message(raw, topic, path)
            for arm, names in self.arms.take(topic, message, when, publisher).items():
                if self._watches[arm].add(time, names):
                    found.streams[f"joints {arm}"].add(time, message.header.stamp.to_sec())
        elif topic in topics.grippers:
            self.arms.take(topic, bags.message(raw, topic, path), when, publisher)
        elif topic in topics.camera_info:
            for view in topics.camera_info[topic]:
                if view not in found.infos:
                    info = bags.message(raw, topic, path)
                    found.infos[view] = (info.K[0], info.K[4], info.K[2], info.K[5], float(info.width))
        elif topic == topics.instruction:
            text = "" if self._told else bags.text(raw, topic, path)
            if text and (not found.recording.instructions or found.recording.instructions[-1][1] != text):
                found.recording.instructions.append((when, text))
        elif topic == topics.proposals:
            proposal = read_proposal(bags.message(raw, topic, path))
            found.proposals += [proposal] if proposal is not None else []
        elif topic == topics.status:
            self._status(conversions.status_contract(bags.message(raw, topic, path)), when)

    def _status(self, status: SafetyStatus, when: float) -> None:
        # A dry run moves nothing: whoever moved the robot then followed the instruction by other means.
        self.saw_status = self.saw_status or not status.dry_run
        following = status.state in FOLLOWING and not status.dry_run
        if self._following is not None and (not following or when - self._status_at > STATUS_GAP_S):
            self._spans.append((self._following, self._status_at))
            self._following = None
        if following and self._following is None:
            self._following = when
        self._status_at = when
        if status.epoch and status.state != State.INACTIVE:     # as the policy node's memory of commands takes it
            self.executed.update(status.commanded)
        # What a dry run computes, or the status of a filter that nobody follows contains, was not sent to an arm.
        for arm, pose in status.commanded.items() if following else ():
            if arm in self.commands and abs(float(np.linalg.norm(pose.quaternion)) - 1.0) < 1e-3:
                self.commands[arm].add(status.stamp, pose, math.nan, np.zeros(0))

    def engaged(self) -> List[Tuple[float, float]]:
        """Returns the spans in which the filter moved or held the arms for the policy, s of recording."""
        if self._following is not None:
            self._spans.append((self._following, self._status_at))
            self._following = None
        return self._spans


def read_proposal(message: ActionProposal) -> Optional[RecordedProposal]:
    """Reads a recorded `ActionProposal`; None for one that holds the arms or is not well formed."""
    if message.kind != ACTION_KIND or not message.action or not message.action_dim \
            or len(message.action) % message.action_dim:
        return None
    return RecordedProposal(
        message.header.stamp.to_nsec(), message.camera_spread.to_sec(), message.instruction, message.checkpoint_sha256,
        np.array(message.action, dtype=float).reshape(-1, message.action_dim), float(sum(message.stage_ms)),
        message.observation_age.to_sec())
