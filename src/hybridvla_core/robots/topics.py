"""Which roles a topic may have in a robot's configuration, and which topics must differ.

A role that nobody reads, or a topic that appears in two places, is a typo with consequences on the robot: a gripper that
never moves, or an arm that obeys the other arm's commands.
"""
from __future__ import annotations

import difflib
import re
from typing import Dict, Iterable, List, Mapping, Sequence, Tuple

from hybridvla_core.configuration import require
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.graph_names import DEADMAN, GO_TO_START, HEARTBEAT, PROPOSAL, STATUS

#: Roles whose names are the same on every robot. A file may state these names for its readers, but no others.
FIXED = {"proposal": PROPOSAL, "heartbeat": HEARTBEAT, "deadman": DEADMAN, "status": STATUS, "go_to_start": GO_TO_START}
#: Roles of `topics` that all arms share; `*go_to_start` are services.
ROBOT_ROLES = (*FIXED, "robot_go_to_start", "enable")
#: Topics that an arm's driver listens to.
COMMAND_ROLES = ("command", "pose_command", "trajectory", "gripper_command", "gripper_move", "gripper_grasp")
#: Topics that an arm's driver publishes; joint states name their joints and may be shared.
NAMED_STATE_ROLES = ("joint_states", "gripper_joint_states")
STATE_ROLES = (*NAMED_STATE_ROLES, "robot_state", "pose", "pose_euler")
#: Roles that hold joint names, not a topic.
NAME_ROLES = ("finger_joints",)
ARM_ROLES = (*STATE_ROLES, *COMMAND_ROLES, *NAME_ROLES)

_ROS_NAME = re.compile(r"[/~]?[A-Za-z][A-Za-z0-9_]*(/[A-Za-z0-9_]+)*")


def finger_names(arm: ArmConfig) -> Tuple[str, ...]:
    """Returns the names of the gripper's joints in the driver's joint states; empty if there are none."""
    return tuple(name.strip() for name in arm.topics.get("finger_joints", "").split(",") if name.strip())


def joint_topics(arms: Sequence[ArmConfig]) -> Dict[str, Tuple[str, ...]]:
    """Returns the topics of joint states with the arms that each reports: an arm's own, and its gripper's if it has one.

    Live nodes, replay and the player of recordings all read these topics; two arms may share one.
    """
    found: Dict[str, Tuple[str, ...]] = {}
    for arm in arms:
        for role in NAMED_STATE_ROLES:
            topic = arm.topics.get(role)
            if topic and arm.name not in found.get(topic, ()):
                found[topic] = (*found.get(topic, ()), arm.name)
    return found


def check_topics(robot_topics: Mapping[str, str], arms: Sequence[ArmConfig]) -> None:
    """Checks the roles and topics of a robot.

    Args:
        robot_topics: topics that all arms share, by role.
        arms: the arms with their own topics.

    Raises:
        ConfigurationError: naming the arm and the role, for an unknown role, an invalid or incomplete name, a fixed role under
            another name, a topic in two places, or a finger joint that is an arm joint.
    """
    _check_section("topics", robot_topics, ROBOT_ROLES)
    for role, name in FIXED.items():
        given = robot_topics.get(role, name)
        require(given == name,
                f"topics.{role} is {given!r}, but every node uses {name}; leave the key out. If it has to be another one, write "
                f'<remap from="{name}" to="OTHER"/> above the nodes and includes of the launch file')
    places: Dict[str, List[Tuple[str, str, str]]] = {}
    for role, topic in {**robot_topics, **FIXED}.items():
        if topic and role != "enable":
            places.setdefault(topic, []).append(("", role, f"topics.{role}"))
    for arm in arms:
        _check_section(f"arm {arm.name}: topics", arm.topics, ARM_ROLES, not_topics=NAME_ROLES)
        shared = [name for name in finger_names(arm) if name in arm.joint_names]
        require(not shared, f"arm {arm.name}: topics.finger_joints names {', '.join(shared)}, which is a joint of the arm; "
                            "name the gripper's own joint")
        for role, topic in arm.topics.items():
            if topic and role not in NAME_ROLES:
                places.setdefault(topic, []).append((arm.name, role, f"arm {arm.name}: topics.{role}"))
    for topic, users in places.items():
        for index, first in enumerate(users):
            for second in users[index + 1:]:
                require(_may_share(first, second, arms), f"{first[2]} and {second[2]} are both {topic}; give each its own")


def _may_share(first: Tuple[str, str, str], second: Tuple[str, str, str], arms: Sequence[ArmConfig]) -> bool:
    """Returns whether two roles may share a topic. Joint states carry names, so they may as long as no name means two joints."""
    if first[1] not in NAMED_STATE_ROLES or second[1] not in NAMED_STATE_ROLES:
        return False
    by_name = {arm.name: arm for arm in arms}
    one, two = (_names(by_name[arm], role) for arm, role, _ in (first, second))
    return not set(one) & set(two)


def _names(arm: ArmConfig, role: str) -> Tuple[str, ...]:
    return arm.joint_names if role == "joint_states" else finger_names(arm)


def _check_section(where: str, topics: Mapping[str, str], roles: Iterable[str], not_topics: Sequence[str] = ()) -> None:
    known = tuple(roles)
    for role, topic in topics.items():
        near = difflib.get_close_matches(role, known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
        require(role in known, f"{where}: there is no role {role}; {advice}")
        if not topic or role in not_topics:
            continue
        require(_ROS_NAME.fullmatch(topic) is not None,
                f"{where}.{role} is {topic!r}, which is not a ROS name; remove blanks and other signs")
        # In a namespace two spellings would be one topic, and a comparison with the master's list would not find it.
        require(topic.startswith("/"), f"{where}.{role} is {topic!r}, which names another topic in each namespace; write the "
                                       "whole name, from its first / on, and <remap> it where it has to be another one")
