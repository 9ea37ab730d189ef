"""Plays a bag to the live nodes (`replay.launch`): `rosbag play --clock`, the recorded instructions at their times, the
filter active in dry run, and the proposals recorded into a new bag."""
from __future__ import annotations

import bisect
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import genpy
import rospy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64
from std_srvs.srv import SetBool

from hybridvla.srv import SetInstruction
from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError, ObservationError
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.graph_names import ACTIVATE, HEARTBEAT, INSTRUCTION, PROPOSAL, SET_INSTRUCTION, STATUS
from hybridvla_ros.messages.images import from_rgb, to_rgb
from hybridvla_ros.replay import bags, reading
from hybridvla_ros.replay.topics import TopicMap, Topics, beyond_joints, resolve
from hybridvla_ros.runtime.node_support import node_ending, number_parameter, own_path, package_path, require_parameter

RECORDED = (PROPOSAL, HEARTBEAT, INSTRUCTION, STATUS, "/diagnostics")
STEP_S = 0.05
READY_S = 120.0
END_S, END_STEPS = 1.0, 2    # time may end by this much, or this many steps, before what is played does
BACK_S = 0.1            # time that goes back by more has been set back: the bag starts over
PLAYER, SIDE, SEEK = "replay_play", "/replay/images/", "/replay/seek"


@dataclass(frozen=True)
class Feed:
    """What to play.

    Attributes:
        topics: Topics of the bag.
        remaps: Bag's topic -> new name.
        decoded: Compressed images to be published raw: the compressed topic and the raw one.
    """

    topics: Tuple[str, ...]
    remaps: Tuple[str, ...]
    decoded: Tuple[Tuple[str, str], ...]


def plan(topics: Topics, policy: PolicyConfig, robot: RobotConfig, found: Dict[str, str]) -> Feed:
    """Returns the bag's inputs under the names that the live nodes know; nothing that one of our nodes publishes is played."""
    played: List[str] = []
    remaps: List[str] = []
    decoded: List[Tuple[str, str]] = []
    wanted = {camera.view: camera for camera in policy.cameras}
    for topic, views in topics.images.items():
        played.append(topic)
        for view in views:
            camera = wanted[view]
            if found[topic].endswith("CompressedImage") and not camera.compressed:
                side = f"{SIDE}{view}/compressed"
                remaps.append(f"{topic}:={side}")
                decoded.append((side, camera.image_topic))
            elif not found[topic].endswith("CompressedImage") and camera.compressed:
                raise HybridVLAError(f"view {view}: the bag holds raw images on {topic}, the policy listens to compressed "
                                     f"ones on {camera.image_topic}; name a raw topic in the policy's configuration")
            elif topic != camera.image_topic:
                remaps.append(f"{topic}:={camera.image_topic}")
    for topic, arms in topics.joints.items():
        played.append(topic)
        ours = {robot.arm(arm).topics["joint_states"] for arm in arms}
        if len(ours) > 1 or any(topics.names.get(arm) for arm in arms):
            raise HybridVLAError(f"{topic}: joints are renamed or spread over topics by the topic map, which only `hybridvla "
                                 "replay` does; give the robot's configuration the bag's names for playing it live")
        remaps += [f"{topic}:={other}" for other in ours if other != topic]
    played += topics.grippers
    return Feed(tuple(played), tuple(remaps), tuple(decoded))


class Player:
    """One run of the bag from its beginning, or from `start` s, to its end; a number on /replay/seek, s into the bag, continues
    from there."""

    def __init__(self) -> None:
        self._policy = load_file(PolicyConfig, package_path(require_parameter("policy_config")))
        self._robot = load_file(RobotConfig, package_path(require_parameter("robot_config")))
        given = str(rospy.get_param("~topics", "")).strip()
        topic_map = load_file(TopicMap, package_path(given)) if given else TopicMap()
        self._bags = [own_path("bag", part) for part in require_parameter("bag").split()]
        out = str(rospy.get_param("~out", "")).strip()
        self._out = own_path("out", out) if out else self._bags[0].with_name(self._bags[0].stem + "_replayed.bag")
        if not self._out.name.endswith(".bag"):
            self._out = self._out.with_name(self._out.name + ".bag")        # as rosbag record does
        if self._out.resolve() in [path.resolve() for path in self._bags]:
            raise HybridVLAError(f"{self._out}: is the bag to be played; choose another name with out:=")
        self._stamps = str(rospy.get_param("~stamps", reading.HEADER)).strip() or reading.HEADER
        if self._stamps not in reading.STAMPS:
            raise HybridVLAError(f"stamps is {self._stamps!r}; use one of {', '.join(reading.STAMPS)}")
        self._told = " ".join(str(rospy.get_param("~instruction", "")).split())
        self._instructions: List[Tuple[float, str]] = []
        self._begin = 0.0              # s from the first message of the bags to the start of what is played
        self._copy: Optional[tempfile.TemporaryDirectory] = None
        self._feed = self._look(topic_map)
        self._children: List[subprocess.Popen] = []
        self._current, self._seen, self._active = "", 0.0, False
        self._said: Dict[str, str] = {}      # the last answer of each service
        self._wanted: Optional[float] = None

    def _look(self, topic_map: TopicMap) -> Feed:
        """Reads what the bags hold before anything is started."""
        robot, missing = self._robot, beyond_joints(self._robot)
        if missing and rospy.get_param("~activate", True):
            raise HybridVLAError(f"robot {robot.name}: the filter cannot become active, because {', '.join(missing)}, which "
                                 f"driver {robot.driver} also needs, is not played; use activate:=false")
        with bags.BagShelf() as shelf:
            opened = [shelf.open(path) for path in self._bags]
            repaired = [f"{bag.path.name}: {bag.notes[0]}" for bag in opened if bag.notes]
            if repaired and self._stamps == reading.HEADER:
                raise HybridVLAError(f"{repaired[0]}; run `rosbag reindex` on a copy and play that, or play with "
                                     f"stamps:={reading.RECORDING}")
            found = {topic: kind for bag in opened for topic, kind in bag.topics.items()}
            topics = resolve(self._policy, self._robot, topic_map, found, str(self._bags[0]))
            begin = min(bag.begin for bag in opened)
            self._length = max(bag.end for bag in opened) - begin
            for bag in opened:
                # With an instruction given, the recorded ones need not even be text.
                for record in bag.read([topics.instruction]) if topics.instruction and not self._told else ():
                    self._instructions.append((record.when, bags.text(record.raw, record.topic, bag.path)))
            if not self._told and not self._instructions:
                raise HybridVLAError(f"{self._bags[0]}: holds no instruction; give one with instruction:=")
            feed = plan(topics, self._policy, self._robot, found)
            self._last = reading.last_of(opened, feed.topics)
            if self._stamps == reading.RECORDING:
                self._copy = tempfile.TemporaryDirectory(prefix="hybridvla_replay_", dir=str(self._out.parent))
                copy = Path(self._copy.name) / "restamped.bag"
                rospy.loginfo("writing a copy with the time of recording for the stamps: %s", copy)
                self._begin = reading.write_restamped(opened, feed.topics, copy) - begin
                self._bags = [copy]
        return feed

    def run(self) -> None:
        """Plays, and records the proposals.

        Raises:
            HybridVLAError: The nodes do not come up, or playing or recording fails.
        """
        for name in (SET_INSTRUCTION, ACTIVATE):
            try:
                rospy.wait_for_service(name, timeout=READY_S)
            except rospy.ROSException as error:
                raise HybridVLAError(f"{name} did not appear within {READY_S:.0f} s; see what the nodes say") from error
        instruct = rospy.ServiceProxy(SET_INSTRUCTION, SetInstruction)
        activate = rospy.ServiceProxy(ACTIVATE, SetBool)
        for side, topic in self._feed.decoded:
            publisher = rospy.Publisher(topic, Image, queue_size=10, tcp_nodelay=True)
            rospy.Subscriber(side, CompressedImage, self._decode, callback_args=publisher, queue_size=20,
                             buff_size=2 ** 24, tcp_nodelay=True)
        rospy.on_shutdown(self._stop)
        before = _version(self._out)
        try:
            self._play(instruct, activate)
        finally:
            self._stop()
            if self._copy is not None:
                self._copy.cleanup()
        if node_ending():
            rospy.loginfo("stopped from outside; the proposals made until then belong in %s", self._out)
            return
        if _version(self._out) == before:
            raise HybridVLAError(f"{self._out}: rosbag record wrote no bag there; see its messages above, and whether the "
                                 "disk is full")
        rospy.loginfo("played; the proposals are in %s", self._out)

    def _play(self, instruct: rospy.ServiceProxy, activate: rospy.ServiceProxy) -> None:
        """Plays. Raises HybridVLAError when the recorder ends, or the player ends before the bag does."""
        recorder = self._start(["rosbag", "record", "-O", str(self._out), "--lz4", *RECORDED, "__name:=replay_record"])
        player = self._start(self._command(number_parameter("start", 0.0)))
        rospy.Subscriber(SEEK, Float64, self._on_seek, queue_size=1)
        while player.poll() is None and not node_ending():
            if self._wanted is not None:
                start, self._wanted = self._wanted, None
                self._end(self._children.pop())
                player = self._start(self._command(start))
            self._watch(recorder)
            self._step(instruct, activate)
            time.sleep(STEP_S)
        self._watch(recorder)
        if node_ending():
            return
        now = rospy.Time.now().to_sec()        # later than the last step, where a service took its time
        if now <= 0.0:
            raise HybridVLAError("rosbag play ended before it gave the time; see its messages above")
        if self._last - now > max(END_S, END_STEPS * STEP_S * number_parameter("rate", 1.0)):
            raise HybridVLAError(f"rosbag play ended {self._last - now:.1f} s before the end of what it plays; see its words "
                                 f"above, and play again: {self._out} holds the proposals of the part before")

    def _watch(self, recorder: subprocess.Popen) -> None:
        if recorder.poll() is not None and not node_ending():
            raise HybridVLAError(f"{self._out}: rosbag record ended while the bag was played, so proposals are missing; see "
                                 "its messages above, and check that the folder exists and the disk is not full")

    def _on_seek(self, message: Float64) -> None:
        if 0.0 <= message.data < self._length:
            self._wanted = message.data
        else:
            rospy.logwarn("%s: %g s is not in the bag, which is %.1f s long", SEEK, message.data, self._length)

    def _command(self, start: float) -> List[str]:
        rate = number_parameter("rate", 1.0)
        if not 0.01 <= rate <= 100.0 or start < 0.0:
            raise HybridVLAError(f"rate is {rate:g} and start {start:g}; use a rate from 0.01 to 100 and a start from 0 s on")
        start = max(0.0, start - self._begin)
        options = ["--loop"] if rospy.get_param("~loop", False) else []
        options += ["--pause"] if rospy.get_param("~pause", False) else []
        return ["rosbag", "play", "--quiet", "--clock", "--hz", "200", "--rate", str(rate), "--start", str(start), *options,
                "--topics", *self._feed.topics, "--bags", *map(str, self._bags), *self._feed.remaps,
                f"__name:={PLAYER}"]

    def _step(self, instruct: rospy.ServiceProxy, activate: rospy.ServiceProxy) -> None:
        """Sets the instruction of the bag's present time and keeps the filter active, again when the bag starts over."""
        now = rospy.Time.now().to_sec()
        if now <= 0.0:
            return
        if now < self._seen - BACK_S:
            rospy.loginfo("the bag starts over")
            self._current = ""
            if self._active:
                activate(False)
                self._active = False
        self._seen = now
        wanted = self._instruction(now)
        if wanted and wanted != self._current and self._done(SET_INSTRUCTION, instruct(wanted, False)):
            self._current = wanted
        if not self._active and rospy.get_param("~activate", True):
            self._active = self._done(ACTIVATE, activate(True))

    def _done(self, service: str, answer: genpy.Message) -> bool:
        """Tells whether a call was done. Logs an answer that says something new; it is asked again until it is done."""
        words = re.sub(r"\d+", "", answer.message)        # a sentence with a growing number is not new
        if words != self._said.get(service):
            rospy.loginfo("%s: %s", service, answer.message)
        self._said[service] = words
        return bool(answer.success)

    def _instruction(self, now: float) -> Optional[str]:
        if self._told:
            return self._told
        found = bisect.bisect_right([when for when, _ in self._instructions], now) - 1
        return self._instructions[max(found, 0)][1]

    def _decode(self, message: CompressedImage, publisher: rospy.Publisher) -> None:
        try:
            publisher.publish(from_rgb(to_rgb(message, publisher.name), message.header.stamp, message.header.frame_id))
        except ObservationError as error:
            rospy.logwarn_throttle(5.0, "%s", error)

    def _start(self, command: List[str]) -> subprocess.Popen:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        self._children.append(process)
        return process

    def _stop(self) -> None:
        """Ends the player first, then the recorder, which writes its index."""
        while self._children:
            self._end(self._children.pop())

    @staticmethod
    def _end(child: subprocess.Popen) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if child.poll() is not None:
                break
            try:
                os.killpg(child.pid, number)
                child.wait(8.0)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _version(path: Path) -> Optional[Tuple[int, int]]:
    """Returns what tells a file from an earlier one at the same path; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def main() -> None:
    Player().run()
