"""The robot adapter: the contract between the filter's node and a robot's driver."""
from __future__ import annotations

import abc
from typing import Callable, ClassVar, List, Sequence, Tuple

import rospy
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from hybridvla_core.configuration import require
from hybridvla_core.contracts import ArmState
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.status import ArmCommand
from hybridvla_ros.runtime.graph_watch import SystemState

#: Receives every state an adapter reads.
OnState = Callable[[ArmState], None]


class RobotAdapter(abc.ABC):
    """A robot's driver as the filter's node uses it.

    A new robot needs one subclass, its driver's name in `adapters.make`, and a file in `config/robots`. A subclass reads states
    in callbacks and hands each to `on_state`; it publishes nothing that the filter did not release.

    Args:
        config: Configuration of the robot.
        on_state: Called with every state the adapter reads.
    """

    #: What to do about another publisher on a command topic; follows that publisher's name in the message.
    advice: ClassVar[str] = "stop it"
    #: Whether the adapter has its own motion to the start pose, `go_to_start`.
    has_way_to_start: ClassVar[bool] = False

    def __init__(self, config: RobotConfig, on_state: OnState) -> None:
        self.config, self.on_state = config, on_state

    @property
    @abc.abstractmethod
    def command_topics(self) -> List[str]:
        """Returns the topics on which commands go out; no other node may publish there."""

    @abc.abstractmethod
    def send(self, commands: Sequence[ArmCommand], stamp: float) -> None:
        """Publishes what the filter released this tick.

        Args:
            commands: One command for each arm.
            stamp: When the tick began, s; not when the message was sent.
        """

    def go_to_start(self, since: int) -> Tuple[bool, str]:
        """Moves slowly to the start pose and returns when the motion ends.

        The filter is inactive when this is called. Called only where `has_way_to_start` is true; other robots name a service,
        `topics.robot_go_to_start`.

        Args:
            since: `FilterHandle.ends` of the preceding deactivation: a later stop or deactivation ends the motion.

        Returns:
            Whether the robot got there, and a sentence.

        Raises:
            TypeError: This robot has no motion of its own to the start pose.
        """
        raise TypeError(f"{type(self).__name__} has no way to the start of its own")

    def other_publishers(self, system_state: SystemState) -> str:
        """Names other publishers on a command topic, from the master's list; empty when there are none."""
        return publishers_beside_us(self.command_topics, system_state, self.advice)


def publishers_beside_us(topics: Sequence[str], system_state: SystemState, advice: str) -> str:
    """Names the other nodes that publish on one of `topics`, and says what to do.

    Args:
        topics: Topics on which only this node may publish.
        system_state: The master's list.
        advice: What to do about them.

    Returns:
        A sentence, empty when there are none.
    """
    mine, ours = rospy.get_name(), {rospy.resolve_name(topic) for topic in topics}      # a <remap> may name another topic
    for topic, nodes in system_state[0]:
        others = [node for node in nodes if node != mine]
        if topic in ours and others:
            return (f"{topic} is also published by {', '.join(others)}; {advice}. If it no longer runs, the master was not "
                    "told: call rosnode cleanup")
    return ""


def refuse_shared(topics: Sequence[str]) -> None:
    """Raises ConfigurationError where commands for two arms go out on one topic: a <remap> may lead both there."""
    names = [rospy.resolve_name(topic) for topic in topics]
    for index, name in enumerate(names):
        require(name not in names[:index], f"{topics[names.index(name)]} and {topics[index]} are both {name} by the launch "
                                           "file's <remap>; give each arm its own")


def pose_echo(arm: str) -> rospy.Publisher:
    """Returns the publisher that repeats exactly the poses sent to an arm's controller."""
    return rospy.Publisher(f"/hybridvla/safety/{arm}/target", PoseStamped, queue_size=1)


def joint_echo(arm: str) -> rospy.Publisher:
    """Returns the publisher that repeats exactly the joint commands sent to an arm's controller."""
    return rospy.Publisher(f"/hybridvla/safety/{arm}/joint_target", JointState, queue_size=1)
