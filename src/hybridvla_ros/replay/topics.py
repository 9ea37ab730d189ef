"""The role of each topic in a bag: from the policy's and the robot's configuration, or from a topic map file."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.errors import ConfigurationError, ObservationError
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.graph_names import INSTRUCTION, PROPOSAL, STATUS
from hybridvla_core.robots.topics import NAMED_STATE_ROLES, STATE_ROLES, joint_topics
from hybridvla_ros.adapters import NEEDED
from hybridvla_ros.messages.arm_reader import fingers_of

if TYPE_CHECKING:
    from hybridvla_core.robots.arm import ArmConfig

IMAGE_TYPES = ("sensor_msgs/Image", "sensor_msgs/CompressedImage")
EXPECTED = {"joints": "sensor_msgs/JointState", "instruction": "std_msgs/String",
            "proposals": "hybridvla/ActionProposal", "status": "hybridvla/SafetyStatus",
            "camera_info": "sensor_msgs/CameraInfo"}


@dataclass(frozen=True)
class CameraPose:
    """Pose of a fixed camera, and its pinhole model where the bag has no camera info.

    Attributes:
        position_m: (3,) position of its optical frame in the first arm's base, m.
        quaternion_xyzw: (4,) orientation of the same frame; z forward, x right, y down.
        fx_px: Horizontal focal length for an image of width_px, px.
        fy_px: Vertical focal length, px.
        cx_px: Horizontal position of the centre, px.
        cy_px: Vertical position of the centre, px.
        width_px: Width of the image to which these belong, px.
    """

    position_m: Tuple[float, ...]
    quaternion_xyzw: Tuple[float, ...]
    fx_px: Optional[float] = None
    fy_px: Optional[float] = None
    cx_px: Optional[float] = None
    cy_px: Optional[float] = None
    width_px: Optional[int] = None

    def __post_init__(self) -> None:
        if len(self.position_m) != 3 or len(self.quaternion_xyzw) != 4 \
                or abs(float(np.linalg.norm(self.quaternion_xyzw)) - 1.0) > 1e-3:
            raise ConfigurationError("a camera pose needs position_m with three numbers and a unit quaternion_xyzw")


@dataclass(frozen=True)
class TopicMap:
    """A topic map file. All entries are optional.

    Attributes:
        images: View -> topic.
        camera_info: View -> topic.
        joint_states: Arm -> topic.
        joint_names: Arm -> the bag's names of its joints, in the order of the robot's configuration.
        finger_names: Arm -> the bag's names of its finger joints.
        instruction: Topic of the instruction.
        proposals: Topic of recorded proposals.
        status: Topic of the filter's status.
        camera_poses: View -> camera pose, to draw motion into pictures.
    """

    images: Dict[str, str] = field(default_factory=dict)
    camera_info: Dict[str, str] = field(default_factory=dict)
    joint_states: Dict[str, str] = field(default_factory=dict)
    joint_names: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    finger_names: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    instruction: Optional[str] = None
    proposals: Optional[str] = None
    status: Optional[str] = None
    camera_poses: Dict[str, CameraPose] = field(default_factory=dict)


@dataclass(frozen=True)
class Topics:
    """The topics that will be read.

    Attributes:
        images: Topic -> the views it shows.
        camera_info: Topic -> its views.
        joints: Topic of joint states -> the arms that it covers.
        grippers: Topic of a gripper's own joint states -> its arm, where they come apart from the arm's.
        names: By arm, the recording's joint name -> ours.
        instruction: Topic; empty where the recording has none. The same holds for the next two.
        proposals: Topic of recorded proposals.
        status: Topic of the filter's status.
        camera_poses: View -> camera pose.
        notes: What a reader of the result should know.
    """

    images: Dict[str, List[str]]
    camera_info: Dict[str, List[str]]
    joints: Dict[str, List[str]]
    grippers: Dict[str, List[str]]
    names: Dict[str, Dict[str, str]]
    instruction: str
    proposals: str
    status: str
    camera_poses: Mapping[str, CameraPose]
    notes: Tuple[str, ...] = ()


def resolve(policy: PolicyConfig, robot: RobotConfig, given: TopicMap, found: Mapping[str, str], where: str) -> Topics:
    """`found`: topic -> type of the bag. Raises ObservationError for a needed topic that is absent or of another type."""
    notes: List[str] = []
    views = {camera.view: given.images.get(camera.view, camera.image_topic) for camera in policy.cameras}
    unknown = [key for keys, known in (((*given.images, *given.camera_info, *given.camera_poses), views),
                                       ((*given.joint_states, *given.joint_names, *given.finger_names),
                                        {arm.name: 0 for arm in robot.arms})) for key in keys if key not in known]
    if unknown:
        raise ConfigurationError(f"the topic map names {', '.join(sorted(set(unknown)))}, which is neither a view of the "
                                 f"policy ({', '.join(views)}) nor an arm of the robot "
                                 f"({', '.join(arm.name for arm in robot.arms)})")
    images: Dict[str, List[str]] = {}
    for view, topic in views.items():
        images.setdefault(_image_topic(view, topic, found, where, notes), []).append(view)
    infos: Dict[str, List[str]] = {}
    for camera in policy.cameras:
        topic = given.camera_info.get(camera.view, camera.camera_info_topic)
        if topic and found.get(topic) == EXPECTED["camera_info"]:
            infos.setdefault(topic, []).append(camera.view)
        else:
            notes.append(f"no camera info of view {camera.view}: motion is drawn beside its pictures, not into them, unless "
                         "the topic map gives its pinhole")
    joints: Dict[str, List[str]] = {}
    for arm in robot.arms:
        topic = given.joint_states.get(arm.name, arm.topics["joint_states"])
        _need(topic, EXPECTED["joints"], f"the joint states of arm {arm.name}", "joint_states", found, where)
        joints.setdefault(topic, []).append(arm.name)
    grippers = _gripper_topics(robot, given, joints, found, notes)
    names = {arm.name: _renamed(arm, given) for arm in robot.arms}
    instruction = _optional(given.instruction or INSTRUCTION, "instruction", found, notes)
    proposals = _optional(given.proposals or PROPOSAL, "proposals", found, notes)
    status = _optional(given.status or STATUS, "status", found, notes)
    return Topics(images, infos, joints, grippers, names, instruction, proposals, status, given.camera_poses, tuple(notes))


def beyond_joints(robot: RobotConfig) -> List[str]:
    """Returns the topics by which the robot's adapter judges its driver, besides joint states.

    A bag's joint states alone do not make such a robot ready, and with these topics its driver's services would still be missing.
    """
    roles = {role for entry in NEEDED.get(robot.driver, ()) for role in entry} & set(STATE_ROLES) - set(NAMED_STATE_ROLES)
    return sorted(arm.topics[role] for arm in robot.arms for role in roles if arm.topics.get(role))


def _gripper_topics(robot: RobotConfig, given: TopicMap, joints: Mapping[str, List[str]], found: Mapping[str, str],
                    notes: List[str]) -> Dict[str, List[str]]:
    """Returns the grippers' own topics, as the live nodes read them; a missing one is noted, not required."""
    grippers: Dict[str, List[str]] = {}
    for topic, arms in joint_topics(robot.arms).items():
        own = [arm for arm in arms if robot.arm(arm).topics.get("gripper_joint_states") == topic]
        if topic in joints or not own or any(arm in given.joint_states for arm in own):
            continue
        if found.get(topic) == EXPECTED["joints"]:
            grippers[topic] = own
        else:
            notes.append(f"the gripper of arm {', '.join(own)} is unknown: {topic} is not in the bag"
                         if topic not in found else f"{topic} holds {found[topic]} and not {EXPECTED['joints']}; it is not read")
    return grippers


def _image_topic(view: str, topic: str, found: Mapping[str, str], where: str, notes: List[str]) -> str:
    """Returns the configured topic, or its raw or compressed sibling."""
    plain = topic[:-len("/compressed")] if topic.endswith("/compressed") else topic
    for candidate in (topic, plain, plain + "/compressed"):
        if candidate in found:
            if found[candidate] not in IMAGE_TYPES:
                raise ObservationError(f"{where}: {candidate} for view {view} holds {found[candidate]}; images must be "
                                       f"{' or '.join(IMAGE_TYPES)}")
            if candidate != topic:
                notes.append(f"view {view} is read from {candidate}, because {topic} is not in the bag")
            return candidate
    pictures = [name for name, kind in found.items() if kind in IMAGE_TYPES]
    raise ObservationError(f"{where}: no images of view {view}: {topic} is not in the bag; it has "
                           f"{', '.join(sorted(pictures)) or 'no images at all'}; name the right one in a topic map "
                           "(--topics)")


def _need(topic: str, kind: str, what: str, key: str, found: Mapping[str, str], where: str) -> None:
    if topic not in found:
        alike = sorted(name for name, other in found.items() if other == kind)
        raise ObservationError(f"{where}: {what} are missing: {topic} is not in the bag; topics of {kind}: "
                               f"{', '.join(alike) or 'none'}; name the right one under {key} in a topic map (--topics)")
    if found[topic] != kind:
        raise ObservationError(f"{where}: {topic} holds {found[topic]}, but {what} must be {kind}")


def _optional(topic: str, key: str, found: Mapping[str, str], notes: List[str]) -> str:
    if topic in found and found[topic] == EXPECTED[key]:
        return topic
    if topic in found:
        notes.append(f"{topic} holds {found[topic]} and not {EXPECTED[key]}; it is not read")
    return ""


def _renamed(arm: ArmConfig, given: TopicMap) -> Dict[str, str]:
    names: Dict[str, str] = {}
    if arm.name in given.joint_names:
        names.update(_pairs(arm.name, given.joint_names[arm.name], arm.joint_names, "joint_names"))
    if arm.name in given.finger_names:
        names.update(_pairs(arm.name, given.finger_names[arm.name], fingers_of(arm)[0], "finger_names"))
    return names


def _pairs(arm: str, theirs: Tuple[str, ...], ours: Sequence[str], key: str) -> Dict[str, str]:
    if len(theirs) != len(ours):
        raise ConfigurationError(f"the topic map gives {len(theirs)} {key} for arm {arm}, the robot has {len(ours)}")
    return dict(zip(theirs, ours))
