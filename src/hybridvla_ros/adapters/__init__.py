"""Robot adapters: one file per robot. `make` chooses by the configuration's `driver`."""
from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Tuple

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.topics import COMMAND_ROLES

if TYPE_CHECKING:       # a robot's topics can be checked without ROS
    from hybridvla_ros.adapters.adapter import OnState, RobotAdapter
    from hybridvla_ros.filter_handle import FilterHandle

#: Entries of `arms[].topics` that a driver's adapter needs to work; of each inner tuple, one entry is enough.
NEEDED: Dict[str, Tuple[Tuple[str, ...], ...]] = {
    "franka_cartesian": (("joint_states",), ("command",)),
    "franka_ros": (("joint_states",), ("robot_state",), ("command",), ("trajectory",)),
    "agilex_joint": (("joint_states",), ("finger_joints",), ("robot_state",), ("pose_euler", "pose"), ("command",)),
    "agilex_pos_cmd": (("joint_states",), ("finger_joints",), ("robot_state",), ("pose_euler", "pose"), ("pose_command",)),
}
#: Further entries that an arm needs if it has the first.
WITH = {"franka_ros": {"gripper_move": ("gripper_grasp", "gripper_joint_states")}}
#: Entries of `arms[].topics` on which a driver's adapter sends commands.
COMMANDS: Dict[str, Tuple[str, ...]] = {
    "franka_cartesian": ("command", "gripper_command"),
    "franka_ros": ("command", "trajectory", "gripper_move", "gripper_grasp"),
    "agilex_joint": ("command", "pose_command"),
    "agilex_pos_cmd": ("command", "pose_command"),
}
#: The door of a driver that has only one door and whose name does not fix it.
DOORS = {"franka_cartesian": "cartesian"}


def check_topics(config: RobotConfig) -> None:
    """Checks that the robot's driver supports its door, has the topics it needs, and reads all topics that carry commands.

    Raises:
        ConfigurationError: Names the door, or the arm and the entry of `topics` that is missing or that nobody reads.
    """
    door = DOORS.get(config.driver, config.door)
    if config.door != door:
        raise ConfigurationError(f"robot {config.name}: door is {config.door}, but driver {config.driver} is commanded through "
                                 f"door {door} alone; use that one")
    for arm in config.arms:
        read = COMMANDS.get(config.driver, COMMAND_ROLES)
        for role in COMMAND_ROLES:
            if arm.topics.get(role) and role not in read:
                raise ConfigurationError(f"robot {config.name}: arm {arm.name} has topics.{role}, on which driver "
                                         f"{config.driver} commands nothing; it knows {', '.join(read)}")
        extra = [(role,) for first, roles in WITH.get(config.driver, {}).items() if arm.topics.get(first) for role in roles]
        for roles in (*NEEDED.get(config.driver, ()), *extra):
            if not any(arm.topics.get(role, "").strip() for role in roles):
                raise ConfigurationError(f"robot {config.name}: arm {arm.name} has no topics.{' or topics.'.join(roles)}, "
                                         f"which driver {config.driver} needs; add it")


def make(config: RobotConfig, on_state: OnState, safety: FilterHandle) -> RobotAdapter:
    """Makes the adapter of a robot.

    Args:
        config: Configuration of the robot; its `driver` chooses the adapter.
        on_state: Called with every state the adapter reads.
        safety: The filter as seen by an adapter's slower work.

    Returns:
        The adapter, not started.

    Raises:
        ConfigurationError: There is no adapter for the driver, or its door or a topic does not fit.
    """
    from hybridvla_ros.adapters.adapter import refuse_shared

    check_topics(config)
    adapter = _made(config, on_state, safety)
    refuse_shared(adapter.command_topics)
    return adapter


def _made(config: RobotConfig, on_state: OnState, safety: FilterHandle) -> RobotAdapter:
    if config.driver == "franka_cartesian":
        from hybridvla_ros.adapters.pose_topic import PoseTopicAdapter

        return PoseTopicAdapter(config, on_state)
    if config.driver == "franka_ros":
        from hybridvla_ros.adapters.franka.adapter import FrankaAdapter

        return FrankaAdapter(config, on_state, safety)
    if config.driver in ("agilex_joint", "agilex_pos_cmd"):
        from hybridvla_ros.adapters.agilex.adapter import AgilexAdapter

        return AgilexAdapter(config, on_state, safety)
    raise ConfigurationError(f"robot {config.name}: there is no adapter for driver {config.driver!r} in this version")
