"""The policy node: takes images and robot state, publishes proposals, as fast as the model runs."""
from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np
import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from hybridvla.msg import ActionProposal, PolicyHeartbeat, SafetyStatus
from hybridvla.srv import SetInstruction, SetInstructionRequest, SetInstructionResponse
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Heartbeat, Observation, PolicyState, Proposal
from hybridvla_core.errors import ConfigurationError, HybridVLAError, ObservationError
from hybridvla_core.evaluation.trained import doubts
from hybridvla_core.policy.cameras import CameraRig
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import image_preparer
from hybridvla_core.policy.interface import HasLink, PolicyInterface
from hybridvla_core.policy.proposing.proposer import InstructionAnswer, Proposer, check_fit
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.graph_names import HEARTBEAT, INSTRUCTION, PROPOSAL, SET_INSTRUCTION, STATUS
from hybridvla_core.waiting import Event
from hybridvla_ros.messages import conversions
from hybridvla_ros.messages.images import to_rgb
from hybridvla_ros.observation.arm_feed import ArmFeed
from hybridvla_ros.observation.camera_feed import CameraFeed, ImageMessage, Pixels
from hybridvla_ros.observation.covered import CoveredImages
from hybridvla_ros.runtime.node_support import Diagnostics, package_path, publish_unless_ending, require_parameter
from hybridvla_ros.runtime.overload import Overload
from hybridvla_ros.runtime.pacing import SWITCH_S
from hybridvla_ros.runtime.ros_clock import clock_problem
from hybridvla_ros.runtime.threads import use_threads
from hybridvla_ros.runtime.warming import first_answer
from hybridvla_ros.runtime.workers import FAULTS, Rate, described, start_worker

HEARTBEAT_S = 0.1
#: How often to check whether a prediction is due, and how long to wait at most for new data, s.
IDLE_S, WAIT_S = 0.002, 0.05
#: Pause before a failed prediction is tried again, s.
FAILED_S = 0.5
PREDICTING = "predicting"
#: If time goes back by more than this, somebody set it back on purpose; a smaller step is an NTP correction, s.
CLOCK_BACK_S = 0.5


class PolicyNode:
    """Wires a `Proposer` to topics. `policy`: the model that predicts (policy/interface.py)."""

    def __init__(self, policy: PolicyInterface, config: PolicyConfig, robot: RobotConfig) -> None:
        check_fit(policy, config, robot)
        self.config, self.robot, self.policy = config, robot, policy
        self._preparer = image_preparer(policy, config)
        self._proposals = rospy.Publisher(PROPOSAL, ActionProposal, queue_size=4, tcp_nodelay=True)
        self._heartbeats = rospy.Publisher(HEARTBEAT, PolicyHeartbeat, queue_size=4, tcp_nodelay=True)
        self._instructions = rospy.Publisher(INSTRUCTION, String, queue_size=1, latch=True)
        self.proposer = Proposer(policy, config, publish=self._publish_proposal, publish_heartbeat=self._publish_heartbeat,
                                 clock=lambda: rospy.Time.now().to_sec())
        self._overload = Overload()
        self._used: Tuple[int, int] = (0, 0)  # stamp, ns, and instruction of the last prediction
        self._arms = ArmFeed(robot, self.proposer.on_arm_state)
        self._clock_seen = 0.0
        self._problem, self._remark = "warming up", ""
        self.doubt: Callable[[str], str] = lambda sentence: ""      # set for a checkpoint that says what it was trained for
        self._warm_up(policy)
        self._subscribe()
        rospy.Service(SET_INSTRUCTION, SetInstruction, self._set_instruction)
        self._diagnostics = Diagnostics("inference", self._report)
        self._pulse = Rate(HEARTBEAT_S, self.proposer.send_heartbeat, "the heartbeat")

    # Inputs --------------------------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        self.feed = CameraFeed(self.config.cameras, self.config.max_camera_spread_s, self.config.max_observation_age_s,
                               self._convert, self.config.prepare_on_arrival)
        self._covered = CoveredImages(self.feed.sync, self.proposer)
        for topic, names in self._arms.topics.items():
            rospy.Subscriber(topic, JointState, self._on_joints, callback_args=names, queue_size=10, tcp_nodelay=True)
        rospy.Subscriber(STATUS, SafetyStatus, self._on_status, queue_size=5, tcp_nodelay=True)

    def _on_joints(self, message: JointState, names: List[str]) -> None:
        self._arms.on_joints(message, names, time.monotonic())
        self.feed.sync.wake()            # an observation may have waited for the state that covers it

    def _on_status(self, message: SafetyStatus) -> None:
        self.proposer.on_status(conversions.status_contract(message))

    def _set_instruction(self, request: SetInstructionRequest) -> SetInstructionResponse:
        answer = self.instruct(request.instruction, request.hold)
        return SetInstructionResponse(answer.success, answer.message, answer.previous, answer.instruction_sequence,
                                      rospy.Time.now())

    def instruct(self, text: str, hold: bool = False) -> InstructionAnswer:
        """Switches the task as `Proposer.set_instruction` does and publishes it; a refused instruction is not published."""
        answer = self.proposer.set_instruction(text, hold)
        if answer.success:
            self._instructions.publish(String(self.proposer.instruction))
            rospy.loginfo("instruction: %s (%s)", self.proposer.instruction, answer.message)
            doubt = self.doubt(self.proposer.instruction)
            if doubt:
                rospy.logwarn("%s", doubt)
        else:
            rospy.logerr("the instruction %r is refused: %s", text, answer.message)
        return answer

    # Outputs -------------------------------------------------------------------------------------------------------

    def _publish_proposal(self, proposal: Proposal) -> None:
        publish_unless_ending(self._proposals, conversions.proposal_message(proposal))

    def _publish_heartbeat(self, heartbeat: Heartbeat) -> None:
        overload = self._overload.now() if heartbeat.state != PolicyState.WAITING else self._overload.problem
        more = [text for text in (overload, self._remark, FAULTS.problem) if text and text not in heartbeat.message]
        if more:
            heartbeat = replace(heartbeat, message="; ".join(filter(None, (heartbeat.message, *more))))
        publish_unless_ending(self._heartbeats, conversions.heartbeat_message(heartbeat))

    def _report(self) -> Tuple[int, str, Dict[str, object]]:
        heartbeat = self.proposer.heartbeat()
        level = DiagnosticStatus.ERROR if heartbeat.state == PolicyState.FAULT else (
            DiagnosticStatus.WARN if self._problem or self._overload.problem or self._remark else DiagnosticStatus.OK)
        values = {"sequence": heartbeat.last_sequence, "discarded": self.proposer.discarded,
                  "instruction": self.proposer.instruction}
        return level, self._problem or self._overload.problem or self._remark or heartbeat.message or "predicting", values

    # The loop ------------------------------------------------------------------------------------------------------

    def spin(self) -> None:
        """Predicts whenever a prediction is due and an observation can be made."""
        sys.setswitchinterval(SWITCH_S)  # images are received while other threads work
        rospy.loginfo("policy READY: %s, cameras %s", self.config.mode, ", ".join(self.feed.sync.views))
        while not rospy.is_shutdown():
            self._watch_clock()
            doubt = self._arms.problem(time.monotonic())
            if not doubt and not self.proposer.due():
                self._problem = ""
                time.sleep(IDLE_S)
                continue
            self._problem = doubt or self._try_to_predict()
            if self._problem:
                self.proposer.report(self._problem)
                rospy.logwarn_throttle(5.0, self._problem)
                self.feed.sync.wait(0.02)

    def _try_to_predict(self) -> str:
        """Calls `_predict`; an unforeseen error counts as a fault until a prediction succeeds."""
        try:
            return self._predict()
        except HybridVLAError:
            raise                   # foreseen: it ends the node with one sentence
        except Exception as error:  # noqa: BLE001  # the graphics card's memory, say: named, and tried again
            problem = f"the prediction fails: {described(error)}"
            FAULTS.add(PREDICTING, problem)
            time.sleep(FAILED_S)
            return problem

    def _watch_clock(self) -> None:
        """Resets when simulated time goes back (a bag that loops, a seek): images and stamps would be from the future."""
        now = rospy.Time.now().to_sec()
        if now < self._clock_seen - CLOCK_BACK_S:
            rospy.logwarn("the clock was set back by %.2f s; starting over", self._clock_seen - now)
            self.feed.sync.clear()
            self.proposer.start_over()
            self._used = (0, 0)
            if self.proposer.instruction:       # listeners take the new epoch for a policy without an instruction
                self._instructions.publish(String(self.proposer.instruction))
        self._clock_seen = now

    def _predict(self) -> str:
        """Runs one inference; returns a sentence when there was nothing to predict from."""
        news = self.feed.sync.news
        found, problem = self.feed.latest()
        if found is None:
            self._remark = ""
            return clock_problem() or problem
        found = self._covered.choose(found, rospy.Time.now().to_sec())
        self._remark = self._covered.remark
        if self._remark:
            rospy.logwarn_throttle(10.0, "%s", self._remark)
        moment = (found.stamp_ns, self.proposer.instruction_sequence) if found is not None else self._used
        if found is None or moment == self._used or not self.proposer.wants(found.stamp_ns * 1e-9):
            self.feed.sync.wait(WAIT_S, news)
            return self._covered.problem if found is None else ""
        try:
            images = {view: frame.image(view) for view, frame in found.messages.items()}
            self._overload.begin()
            self.proposer.step(images, found.stamp_ns, found.spread)
            self._overload.end()
            FAULTS.clear(PREDICTING)
            self._used = moment
            if self._overload.problem:
                rospy.logwarn_throttle(5.0, "%s", self._overload.problem)
        except ObservationError as error:
            return str(error)
        return ""

    def _convert(self, message: ImageMessage, view: str) -> Pixels:
        """Returns what the model needs of a message, already resized where the configuration asks for early resizing."""
        if self._preparer is not None and self.config.reduced_jpeg and "jpeg" in getattr(message, "format", ""):
            return self._preparer.prepare_jpeg(message.data, view, message.format)
        image = to_rgb(message, view)
        return self._preparer.prepare(image, view) if self._preparer is not None and self.config.prepare_on_arrival else image

    def _warm_up(self, policy: PolicyInterface) -> None:
        """Runs the first prediction before any robot waits for it, because it allocates memory, here or at a server."""
        images = {camera.view: np.zeros((camera.height_px or 256, camera.width_px or 256, 3), dtype=np.uint8)
                  for camera in self.config.cameras}
        seen = Observation(images, "put the red block on the green pad", np.zeros(7 * len(self.config.convention.arms)), 0)
        patience_s = self.config.remote.connect_timeout_s if self.config.remote and isinstance(policy, HasLink) else 0.0
        for _ in range(2 if getattr(policy, "warms_up", True) else 0):
            first_answer(lambda: policy.predict(seen, mode=self.config.inference_mode), patience_s)
        self._problem = ""


class Warming:
    """Announces a coming policy until it is warm, so that nobody activates the filter while the model still loads.

    The filter's watchdog does not take the announcement for a heartbeat: its epoch is 0, which no policy has.
    """

    def __init__(self) -> None:
        self._publisher = rospy.Publisher(HEARTBEAT, PolicyHeartbeat, queue_size=1)
        self._over = Event()
        start_worker("saying that the policy loads", self._beat)

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            message = PolicyHeartbeat(state=PolicyHeartbeat.WAITING, warming_up=True,
                                      message="the model is loading and warming up")
            message.header.stamp = rospy.Time.now()
            if not publish_unless_ending(self._publisher, message):
                return  # the node ends before the policy was warm

    def end(self) -> None:
        self._over.set()


def load_policy(config: PolicyConfig, robot: RobotConfig, checkpoint: str = "") -> PolicyInterface:
    """Loads the checkpoint that the configuration names, or the one in another folder, or connects to the server that has one.

    A mismatch is refused before the weights are read.

    Args:
        config: Configuration of the policy.
        robot: Robot that the policy must fit.
        checkpoint: Folder to load instead of the configured one.

    Returns:
        The policy.

    Raises:
        ConfigurationError: No checkpoint is named, or it does not fit the configuration.
    """
    if config.backend == "remote":
        from hybridvla_core.policy.remote.client import connected

        return connected(config.remote)
    from hybridvla_core.checkpoints.format import read_config
    from hybridvla_core.policy.predictor import Policy

    named = checkpoint or config.checkpoint
    if not named:
        raise ConfigurationError("no checkpoint is named; launch with checkpoint:=FOLDER, or write the folder into the policy "
                                 "configuration")
    folder = package_path(named)
    check_fit(read_config(folder), config, robot)
    return Policy.from_checkpoint(folder, mode=config.mode, device=config.device, dtype=config.dtype,
                                  all_tokens=config.all_tokens, noise_samples=config.noise_samples, graphs=config.graphs,
                                  compile=config.compile, precision=config.precision)


def main(policy: Optional[PolicyInterface] = None) -> None:
    config = load_file(PolicyConfig, package_path(require_parameter("policy_config")))
    mode = str(rospy.get_param("~mode", "")).strip()
    if mode:
        config = replace(config, mode=mode)
    cameras = str(rospy.get_param("~cameras", "")).strip()
    if cameras:
        config = config.with_cameras(load_file(CameraRig, package_path(cameras)))
    server = str(rospy.get_param("~server", "")).strip()
    if server:
        config = config.on_server(server)
    robot = load_file(RobotConfig, package_path(require_parameter("robot_config")))
    threads = use_threads(config.threads)
    rospy.loginfo("the policy calculates with %d thread%s of the processor", threads, "" if threads == 1 else "s")
    warming = Warming()
    checkpoint = str(rospy.get_param("~checkpoint", "")).strip()
    node = PolicyNode(policy or load_policy(config, robot, checkpoint), config, robot)
    if policy is None and config.backend != "remote":
        node.doubt = doubts(package_path(checkpoint or config.checkpoint))
    warming.end()
    instruction = str(rospy.get_param("~instruction", "")).strip()
    if instruction:
        node.instruct(instruction)
    node.spin()
