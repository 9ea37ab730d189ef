"""Judges the running graph from facts: what `gather` saw on the master in a few seconds."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from hybridvla_cli.doctor_parts.drivers import driver_findings
from hybridvla_cli.doctor_parts.findings import FAILURE, OK, WARNING, Finding
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.graph_names import DEADMAN, HEARTBEAT, PROPOSAL
from hybridvla_core.robots.topics import finger_names, joint_topics

#: Largest difference between two clocks, and between an image's stamp and now, s; lowest rate of an image stream, Hz.
CLOCKS_S, SLOWEST_HZ = 0.1, 4.0
ALONE = (PROPOSAL, HEARTBEAT, DEADMAN)


@dataclass(frozen=True)
class Stream:
    """What came on one topic.

    Attributes:
        count: Number of messages.
        seconds: Listening time, s.
        age_s: Age of the newest stamp on arrival, s; None without a stamp.
        names: Joint names in all joint states that came.
        width: Width of an image, pixels; 0 if it is not an image.
        height: Height of an image, pixels; 0 if it is not an image.
        bytes: Size of one message.
        sent: For joint states: the node that sent one and the joints in it, each pair once.
    """

    count: int = 0
    seconds: float = 1.0
    age_s: Optional[float] = None
    names: Tuple[str, ...] = ()
    width: int = 0
    height: int = 0
    bytes: int = 0
    sent: Tuple[Tuple[str, Tuple[str, ...]], ...] = ()

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Stream:
        """Returns a stream from its JSON, whose lists become tuples."""
        sent = tuple((node, tuple(names)) for node, names in found["sent"])
        return cls(**{**found, "names": tuple(found["names"]), "sent": sent})


@dataclass(frozen=True)
class Facts:
    """The facts about a master.

    Attributes:
        master: Address of the master.
        online: Whether the master answers.
        simulated: Value of `/use_sim_time`.
        publishers: Topic -> publishing nodes.
        subscribers: Topic -> subscribing nodes.
        unreachable: Nodes that do not answer at the address that the master has of them -> that address.
        streams: Topic -> what came on it.
        parameters: Parameters of the cameras' serial numbers -> values.
        status: The filter's status sentence; empty if none came.
        dry_run: Whether the filter commands nothing; None if no filter runs.
        controllers: Controllers of a Franka driver's controller manager, name -> state; None if it does not answer.
        stiffness: Stiffness that its impedance controller announces, name -> N/m or N m/rad; empty while it is not loaded.
        arms: For an AgileX driver, status topic of an arm -> why that arm takes no commands; empty: it takes them.
    """

    master: str = ""
    online: bool = True
    simulated: bool = False
    publishers: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    subscribers: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    unreachable: Dict[str, str] = field(default_factory=dict)
    streams: Dict[str, Stream] = field(default_factory=dict)
    parameters: Dict[str, str] = field(default_factory=dict)
    status: str = ""
    dry_run: Optional[bool] = None
    controllers: Optional[Dict[str, str]] = None
    stiffness: Dict[str, float] = field(default_factory=dict)
    arms: Dict[str, str] = field(default_factory=dict)


def judge(facts: Facts, robot: RobotConfig, config: PolicyConfig) -> List[Finding]:
    """Returns the findings about a graph; a single one if nothing runs."""
    if not facts.online:
        return [Finding("graph", WARNING, f"no ROS master answers at {facts.master}: nothing runs, so nothing can be checked",
                        "start a launch file, or correct ROS_MASTER_URI, and ask again")]
    found = [*_time(facts), *_nodes(facts), *_joints(facts, robot), *_cameras(facts, config), *_commands(facts, robot),
             *driver_findings(facts, robot)]
    if all(finding.status == OK for finding in found):
        found.append(Finding("graph", OK, f"{len(facts.publishers)} topics on {facts.master}, {len(facts.streams)} listened to"))
    if facts.status:
        found.append(Finding("filter", OK, facts.status))
    return found


def _time(facts: Facts) -> Iterator[Finding]:
    if facts.simulated and not facts.publishers.get("/clock"):
        yield Finding("sim time", FAILURE, "/use_sim_time is true and nobody publishes /clock: time stands still for every node",
                      "rosparam set /use_sim_time false, and start the nodes again")
    for topic, stream in facts.streams.items():
        if facts.simulated or stream.age_s is None or not stream.count:
            continue
        if stream.age_s < -CLOCKS_S:
            yield Finding("clocks", FAILURE, f"{topic} comes {-stream.age_s:.2f} s from the future: the clocks of two "
                                             "computers differ, "
                          "and images and joint states do not match",
                          "sudo apt install chrony on both, one as the other's server")
        elif stream.age_s > 5.0 * CLOCKS_S:
            yield Finding("clocks", FAILURE, f"{topic} is {stream.age_s:.2f} s old when it arrives: a clock differs, or the "
                                             "network or driver delays it",
                          "chronyc tracking on both computers; then `rostopic delay` on the topic")


def _nodes(facts: Facts) -> Iterator[Finding]:
    for node, address in facts.unreachable.items():
        yield Finding("nodes", FAILURE, f"{node} cannot be reached at {address}, where the master says it is: its topics are "
                                        "listed, but nothing arrives",
                      "set ROS_IP on its computer and start it again; if it is dead, `rosnode cleanup`")


def _joints(facts: Facts, robot: RobotConfig) -> Iterator[Finding]:
    arms = {arm.name: arm for arm in robot.arms}
    for topic, names in joint_topics(robot.arms).items():
        nodes = facts.publishers.get(topic, ())
        stream = facts.streams.get(topic, Stream())
        for name in names:
            yield from _mixed(arms[name], topic, stream, nodes)
        wanted = [joint for name in names for joint in arms[name].joint_names if arms[name].topics.get("joint_states") == topic]
        if not wanted:
            continue
        if not nodes:
            yield Finding("joints", FAILURE, f"nobody publishes {topic}: the filter stays inactive", "start the robot's driver")
        elif not stream.count:
            yield Finding("joints", FAILURE, f"nothing comes on {topic} from "
                                             f"{', '.join(nodes)}", "start the robot's driver again")
        elif not set(wanted) <= set(stream.names):
            missing = [joint for joint in wanted if joint not in stream.names]
            yield Finding("joints", FAILURE, f"{topic} has the joints {', '.join(stream.names[:3])}, ..., and robot "
                                             f"{robot.name} is "
                          f"configured with {', '.join(missing[:3])}, ...", "launch with the arm_id of the robot's configuration")


def _mixed(arm: ArmConfig, topic: str, stream: Stream, registered: Tuple[str, ...]) -> Iterator[Finding]:
    """Finds mixed sources. Nodes may share a topic and may send arm and gripper apart; `ArmReader` takes one source of each."""
    own = set(arm.joint_names if arm.topics.get("joint_states") == topic else ())
    fingers = set(finger_names(arm))
    senders = {"joints": [node for node, names in stream.sent if own & set(names)],
               "gripper's joints": [node for node, names in stream.sent if fingers & set(names) and not own & set(names)]}
    for what, found in senders.items():
        nodes = [node for node in dict.fromkeys((*registered, *found)) if node in found]
        if len(nodes) > 1:
            yield Finding("joints", FAILURE, f"{', '.join(nodes)} all publish the {what} of arm {arm.name} on {topic}: two "
                                             "would be mixed, and the filter stops", f"end one of them: rosnode kill {nodes[-1]}")


def _cameras(facts: Facts, config: PolicyConfig) -> Iterator[Finding]:
    said = {camera.view: facts.parameters.get(camera.serial_parameter or "", "") for camera in config.cameras}
    for camera in config.cameras:
        nodes = facts.publishers.get(camera.image_topic, ())
        stream = facts.streams.get(camera.image_topic, Stream())
        serial = said[camera.view]
        if not nodes:
            yield Finding("cameras", FAILURE, f"nobody publishes {camera.image_topic}, view {camera.view}: the policy waits",
                          "start the cameras' driver")
        elif len(nodes) > 1:
            yield Finding("cameras", FAILURE, f"{', '.join(nodes)} all publish {camera.image_topic}, view {camera.view}: two "
                          "would be mixed, and the policy waits", f"rosnode kill {nodes[-1]}, or whichever is not the driver")
        elif not stream.count:
            yield Finding("cameras", FAILURE, f"nothing comes on {camera.image_topic}, view {camera.view}, from "
                                              f"{', '.join(nodes)}",
                          "plug the camera in anew, into a USB 3 socket of its own, and start its driver again")
        elif stream.rate < SLOWEST_HZ:
            yield Finding("cameras", WARNING, f"view {camera.view} comes {stream.rate:.1f} times a second with "
                          f"{stream.rate * stream.bytes / 1e6:.0f} MB/s: the policy acts on old pictures",
                          f"name {camera.image_topic}/compressed in the camera configuration, or use a faster network")
        if stream.width and (camera.width_px or stream.width, camera.height_px or stream.height) != (stream.width, stream.height):
            yield Finding("cameras", FAILURE, f"view {camera.view} is {stream.width}x{stream.height} and {camera.width_px}x"
                          f"{camera.height_px} is configured: every image is "
                          "refused", "choose the stream of the training data in the "
                          "driver's launch file")
        if camera.serial and serial and serial.lstrip("_0") != camera.serial.lstrip("_0"):
            owner = [other.view for other in config.cameras if other.serial and other.serial.lstrip("_0") == serial.lstrip("_0")]
            yield Finding("cameras", FAILURE, f"view {camera.view} comes from camera {serial}" + (
                f", which is view {owner[0]}'s: the two are exchanged" if owner else f", but {camera.serial} is configured"),
                "correct the serial numbers in the driver's launch file")


def _commands(facts: Facts, robot: RobotConfig) -> Iterator[Finding]:
    for topic in ALONE:
        nodes = facts.publishers.get(topic, ())
        if len(nodes) > 1:
            yield Finding("commands", FAILURE, f"{', '.join(nodes)} all publish {topic}: the filter stops, or obeys neither",
                          f"end one of them: rosnode kill {nodes[-1]}")
    for arm in robot.arms:
        for role in ("command", "pose_command", "trajectory"):
            topic = arm.topics.get(role, "")
            others = [node for node in facts.publishers.get(topic, ()) if node != "/safety_filter_node"]
            if topic and robot.agilex is not None and set(others) & set(facts.publishers.get(arm.topics["joint_states"], ())):
                yield Finding("commands", FAILURE, f"{', '.join(others)} is the driver of arm {arm.name} and publishes {topic} "
                              "itself: it is in mode 0, in which it reads a leader arm and takes no command",
                              "roslaunch piper start_ms_piper.launch mode:=1 auto_enable:=true, and unplug the leader arms")
            elif topic and others:
                yield Finding("commands", FAILURE, f"{', '.join(others)} commands arm {arm.name} on {topic}, past the filter",
                              f"rosnode kill {others[0]}")
            elif topic and facts.publishers.get(topic) and not facts.subscribers.get(topic):
                yield Finding("commands", FAILURE, f"nobody listens to {topic}: arm {arm.name} will not move",
                              "start the robot's controller: `rosservice call /controller_manager/list_controllers`")
