"""Turns a recording's joint states into arm states: names mapped arm by arm, one publisher, and nothing that jumps."""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Callable, Dict, Optional, Sequence

import numpy as np
from sensor_msgs.msg import JointState

from hybridvla_core.contracts import ArmState
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.inputs.measured_arm import JUMP_RAD, JUMP_SHARE
from hybridvla_ros.messages.arm_reader import listed
from hybridvla_ros.observation.arm_feed import ArmFeed
from hybridvla_ros.replay.topics import Topics

RESUME_S = 0.5         # after a pause this long the arm may be anywhere


@dataclass
class Heard:
    """What was heard of one arm in a recording.

    Attributes:
        count: Messages with the arm's joints.
        unstamped: Messages without a stamp.
        names: Joint names of the last message that had none of the arm's joints.
        doubts: Each kind of sentence on what cannot be relied on, with the time of recording, s.
        jumps: States left out because they jump.
        jump_rad: The largest jump, rad.
        jumped_at: When the first jump came, s of recording.
    """

    count: int = 0
    unstamped: int = 0
    names: Sequence[str] = ()
    doubts: Dict[str, float] = field(default_factory=dict)
    jumps: int = 0
    jump_rad: float = 0.0
    jumped_at: float = math.nan


class JumpGuard:
    """Leaves out states that no motion can reach from the last state that counted. Such a state is a second publisher's, which a
    recording without the publishers' names does not tell from the first one's."""

    def __init__(self, arm: ArmConfig) -> None:
        self._speed = np.array(arm.joint_limits.velocity_rad_s)
        self._joints: Optional[np.ndarray] = None
        self._stamp = self._now = -math.inf

    def jump(self, joints: np.ndarray, stamp: float, now: float) -> float:
        """Returns how far beyond a motion's reach a state is, rad; 0 for a state that counts from here on. stamp, now: s."""
        elapsed = max(stamp - self._stamp, now - self._now, 0.0)
        if self._joints is not None and elapsed < RESUME_S:
            away = np.abs(joints - self._joints)
            if np.any(away > JUMP_SHARE * self._speed * elapsed + JUMP_RAD):
                return float(away.max())
        self._joints, self._stamp, self._now = np.array(joints), stamp, now
        return 0.0


class RecordedArms:
    """Takes the joint states of a recording; `on_state` receives every state that counts, with its stamp, s.

    Both passes read through this class, so that an observation sees the states by which the motion was judged.
    """

    def __init__(self, robot: RobotConfig, topics: Topics, on_state: Callable[[ArmState, float], None]) -> None:
        self._topics, self._on_state = topics, on_state
        self._feed = ArmFeed(robot, self._take_state)
        self._wanted = {arm.name: arm.joint_names for arm in robot.arms}
        self._guards = {arm.name: JumpGuard(arm) for arm in robot.arms}
        self._now = 0.0
        self.heard = {arm.name: Heard() for arm in robot.arms}

    def take(self, topic: str, message: JointState, when: float, publisher: str) -> Dict[str, Sequence[str]]:
        """Takes a message.

        Args:
            topic: Topic on which it was recorded.
            message: Message as recorded.
            when: Time of recording, s.
            publisher: Node that sent it; empty where it is not known.

        Returns:
            The joint names by arm, as in the robot's configuration, of each arm whose publisher sent this message.
        """
        self._now = when
        message._connection_header = {"callerid": publisher}
        names = {}
        for arm in self._topics.joints.get(topic) or self._topics.grippers[topic]:
            mine = self._renamed(message, arm)
            self._feed.on_joints(mine, (arm,), when)
            self._note(arm, mine, when)
            if not self._feed.foreign(arm):
                names[arm] = mine.name
        return names

    def _renamed(self, message: JointState, arm: str) -> JointState:
        """Returns the message with one arm's names; how it names other joints does not matter then."""
        renames = self._topics.names.get(arm, {})
        if not renames:
            return message
        taken = set(renames.values())
        names = [renames.get(name, f"{name} (not mapped)" if name in taken else name) for name in message.name]
        mine = JointState(message.header, names, message.position, message.velocity, message.effort)
        mine._connection_header = message._connection_header
        return mine

    def _note(self, arm: str, message: JointState, when: float) -> None:
        heard, doubt = self.heard[arm], self._feed.doubt(arm, when)
        if set(self._wanted[arm]) & set(message.name):
            heard.count += 1
            heard.unstamped += message.header.stamp.to_nsec() == 0
        else:
            heard.names = message.name
        if doubt and heard.count:       # before the arm's first joints others may have come on their topic
            heard.doubts.setdefault(doubt, when)

    def _take_state(self, state: ArmState, stamp: float) -> None:
        jump = self._guards[state.name].jump(state.joint_positions, stamp, self._now)
        if not jump:
            self._on_state(state, stamp)
            return
        heard = self.heard[state.name]
        heard.jumped_at = self._now if not heard.jumps else heard.jumped_at
        heard.jumps, heard.jump_rad = heard.jumps + 1, max(heard.jump_rad, jump)

    def problems(self, begin: float) -> Dict[str, Dict[str, str]]:
        """Returns what is wrong with the joint states as a whole: by arm, sentences by kind. begin: of the recording, s."""
        found: Dict[str, Dict[str, str]] = {}
        for arm, heard in self.heard.items():
            texts = {f"doubt {number}": f"arm {arm}: {text} (first at {when - begin:.2f} s)"
                     for number, (text, when) in enumerate(list(heard.doubts.items())[:3], 1)}
            if heard.jumps:
                texts["jumps"] = (
                    f"arm {arm}: {heard.jumps} of {heard.count} joint states jump by up to {heard.jump_rad:.2f} rad from the "
                    f"others (first at {heard.jumped_at - begin:.2f} s) and are left out; did two nodes publish them?")
            found[arm] = texts
        return found

    def unusable(self, arm: str) -> str:
        """Says why an arm has no usable states, as far as its messages tell."""
        heard, wanted = self.heard[arm], listed(self._wanted[arm])
        if heard.unstamped:
            return (f"{heard.unstamped} of {heard.count} carry no stamp (it is 0); judge the recording by the time of recording: "
                    "--stamps recording")
        if not heard.count:
            return (f"they name {listed(heard.names)}, expected are {wanted}; map the names in a topic map (joint_names), or set "
                    "them in the robot's configuration")
        return next(iter(heard.doubts), f"{heard.count} arrived; check the joint names against the robot's configuration")
