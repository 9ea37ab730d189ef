"""The safety filter node: runs `SafetyFilter` at a fixed rate on monotonic time. Imports neither torch nor a model."""
from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, Tuple

import rosgraph
import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, SetBoolRequest, SetBoolResponse, Trigger, TriggerRequest, TriggerResponse

from hybridvla.msg import ActionProposal, PolicyHeartbeat, SafetyStatus
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import ArmState
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.graph_names import ACTIVATE, DEADMAN, GO_TO_START, HEARTBEAT, PROPOSAL, REENTER, RESUME, STATUS, STOP
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.status import FilterOutput, Reason, State
from hybridvla_ros import adapters
from hybridvla_ros.filter_handle import MEANWHILE, Answer, FilterHandle
from hybridvla_ros.messages import conversions
from hybridvla_ros.messages.services import ask
from hybridvla_ros.messages.sources import source_of
from hybridvla_ros.runtime.already_running import ASKS, asked_name, refuse_if_running
from hybridvla_ros.runtime.graph_watch import GraphWatch
from hybridvla_ros.runtime.node_support import (
    Diagnostics,
    UnfailingLog,
    node_ending,
    number_parameter,
    package_path,
    require_parameter,
)
from hybridvla_ros.runtime.pacing import Pace, use_scheduler
from hybridvla_ros.runtime.transition_log import TransitionLog
from hybridvla_ros.runtime.workers import FAULTS
from hybridvla_ros.safety_parameters import SafetyParameters

LEVELS = {State.ACTIVE: DiagnosticStatus.OK, State.INACTIVE: DiagnosticStatus.OK, State.HOLDING: DiagnosticStatus.WARN,
          State.RECOVERING: DiagnosticStatus.WARN, State.STOPPED: DiagnosticStatus.ERROR}
POLICY_PATIENCE_S = 0.4
#: How long a robot's own motion to the start pose may take, s.
TO_START_S = 120.0
#: Why the arms hold when a thread of this node fails. It is not the reason used for a lost master: the master's return must
#: not end this hold.
FAULT = Reason.OPERATOR | Reason.CONFIGURATION
#: Logged when a dry run begins and when it is activated.
DRY = ("this is a dry run: everything is computed and nothing is commanded; to let the robot move, launch with armed:=true, "
       "safety.launch alone with dry_run:=false (or deactivate and set dry_run to false by dynamic_reconfigure)")


class SafetyNode:
    """All calls to the filter go through one lock. Messages are only handed over, never interpreted here."""

    def __init__(self, config: RobotConfig, dry_run: bool, scheduler: str = "fifo") -> None:
        refuse_second_filter()
        self._log = UnfailingLog()
        self._transitions = TransitionLog()
        self.config = config
        self._scheduler = scheduler
        self.filter = SafetyFilter(config, dry_run, bool(rospy.get_param("/use_sim_time", False)))
        self._lock = threading.Lock()
        self._frames = {arm.name: arm.base_frame for arm in config.arms}
        self._status = rospy.Publisher(STATUS, SafetyStatus, queue_size=5, tcp_nodelay=True)
        self._last: Any = None
        self._policy_heard, self._policy_says = float("-inf"), ""
        self._require_policy = rospy.get_param("~require_policy", True) is not False
        self._pace = Pace(config.tick_hz)
        self.handle = FilterHandle(self.filter, self._lock)
        self.adapter = adapters.make(config, self._on_state, self.handle)
        rospy.Subscriber(PROPOSAL, ActionProposal, self._on_proposal, queue_size=10, tcp_nodelay=True)
        rospy.Subscriber(HEARTBEAT, PolicyHeartbeat, self._on_heartbeat, queue_size=10, tcp_nodelay=True)
        rospy.Subscriber(DEADMAN, Bool, self._on_deadman, queue_size=5)
        self._services()
        self._parameters = SafetyParameters(config.speed_scale, dry_run, self._on_parameters, self._on_refused)
        self._diagnostics = Diagnostics("filter", self._report)
        self._graph = GraphWatch(self.adapter.other_publishers, self._on_master, self._on_intruder)
        FAULTS.listen(self._on_fault)

    # Inputs --------------------------------------------------------------------------------------------------------

    def _on_state(self, state: ArmState) -> None:
        with self._lock:
            self.filter.update_arm_state(state, time.monotonic())

    def _on_proposal(self, message: ActionProposal) -> None:
        publisher = message._connection_header.get("callerid", "")
        try:
            proposal = conversions.proposal_contract(message)
        except ValueError as error:
            rospy.logwarn_throttle(1.0, "a proposal from %s cannot be read: %s", publisher, error)
            with self._lock:
                self.filter.on_unreadable_proposal(f"it cannot be read: {error}", time.monotonic(), publisher)
            return
        with self._lock:
            accepted = self.filter.on_proposal(proposal, time.monotonic(), publisher)
            if accepted.at_once:
                self._pace.hurry()
        if not accepted.accepted:
            rospy.logwarn_throttle(1.0, "proposal %d refused: %s", proposal.sequence, accepted.reason)

    def _on_heartbeat(self, message: PolicyHeartbeat) -> None:
        publisher = message._connection_header.get("callerid", "")
        try:
            heartbeat = conversions.heartbeat_contract(message)
        except ValueError as error:
            rospy.logwarn_throttle(1.0, "a heartbeat from %s cannot be read: %s", publisher, error)
            return
        self._policy_heard, self._policy_says = time.monotonic(), "" if heartbeat.ready else (
            heartbeat.message or "it says nothing more")
        if heartbeat.epoch:
            with self._lock:
                self.filter.on_heartbeat(heartbeat, time.monotonic(), publisher)

    def _on_deadman(self, message: Bool) -> None:
        with self._lock:
            self.filter.on_deadman(message.data, time.monotonic(), source_of(message))

    def _services(self) -> None:
        rospy.Service(ACTIVATE, SetBool, self._activate)
        for service, call in ((STOP, self.handle.stop), (RESUME, self._patient(self.filter.resume)),
                              (REENTER, self._patient(self.filter.reenter))):
            rospy.Service(service, Trigger, self._trigger(service.rpartition("/")[2], call))
        rospy.Service(GO_TO_START, Trigger, self._go_to_start)

    def _policy_missing(self) -> str:
        """Says why no policy could take over now: a filter activated early would start to move as soon as the model comes up."""
        if not self._require_policy:
            return ""
        if time.monotonic() - self._policy_heard > self.config.watchdogs.heartbeat_s:
            return "no policy is running (no heartbeat); start it first"
        return f"the policy is not READY: {self._policy_says}" if self._policy_says else ""

    def _activate(self, request: SetBoolRequest) -> SetBoolResponse:
        if not request.data:
            done, message = self.handle.let_go()
            rospy.loginfo("activate False: %s", message)
            return SetBoolResponse(done, message)
        ends = self.handle.ends
        deadline = time.monotonic() + POLICY_PATIENCE_S    # a heartbeat may just be on its way
        missing = self._policy_missing()
        while missing and time.monotonic() < deadline:
            time.sleep(0.02)
            missing = self._policy_missing()
        if missing:
            rospy.loginfo("activate refused: %s", missing)
            return SetBoolResponse(False, missing)
        done, message = self.handle.activate(ends)
        if done and self.filter.dry_run:
            message = f"{message}; {DRY}"
        rospy.loginfo("activate True: %s", message)
        return SetBoolResponse(done, message)

    def _patient(self, call: Callable[[float], Answer]) -> Callable[[], Answer]:
        return lambda: self.handle.patiently(call)

    def _trigger(self, name: str, call: Callable[[], Answer]) -> Callable[[TriggerRequest], TriggerResponse]:
        def serve(_request: TriggerRequest) -> TriggerResponse:
            done, message = call()
            rospy.loginfo("%s: %s", name, message)
            return TriggerResponse(done, message)
        return serve

    def _go_to_start(self, _request: TriggerRequest) -> TriggerResponse:
        """Deactivates, lets the robot's own slow motion run, and leaves the filter inactive. Nothing here ends that motion."""
        topic = self.config.topics.get("robot_go_to_start", "")
        own = self.adapter.has_way_to_start
        if not topic and not own:
            return TriggerResponse(False, f"robot {self.config.name} names no topics.robot_go_to_start")
        deactivated = self.handle.deactivate()
        if deactivated.problem:
            return TriggerResponse(False, deactivated.problem)
        if own:
            return TriggerResponse(*self.adapter.go_to_start(deactivated.ends))
        problem = self.handle.forbids(deactivated.ends)
        if problem:
            return TriggerResponse(False, problem)
        try:
            answer = ask(topic, Trigger, answer_s=TO_START_S)
        except (rospy.ROSException, rospy.ServiceException) as error:
            return TriggerResponse(False, f"{topic} failed: {error}; is the robot's driver running?")
        if self.handle.ends != deactivated.ends:
            return TriggerResponse(False, MEANWHILE)
        return TriggerResponse(answer.success, answer.message)

    def _on_parameters(self, speed_scale: float, dry_run: bool) -> None:
        with self._lock:
            self.filter.set_dry_run(dry_run)
            self.filter.set_speed_scale(speed_scale)

    def _on_refused(self, text: str) -> None:
        with self._lock:
            self.filter.refuse_parameter(text, time.monotonic())
        rospy.logwarn("%s", text)

    def _on_master(self, text: str) -> None:
        with self._lock:
            self.filter.hold_for(Reason.OPERATOR, text)

    def _on_fault(self, text: str) -> None:
        """Holds the arms when a thread of this node has failed: what that thread should watch is not being watched."""
        with self._lock:
            self.filter.hold_for(FAULT, text)

    def _on_intruder(self, text: str) -> None:
        if not self.filter.dry_run:      # a dry run commands nothing, so nobody commands beside it
            self.handle.stop(Reason.CONTROLLER, text)

    # The loop ------------------------------------------------------------------------------------------------------

    def spin(self) -> None:
        """Ticks at the configured rate. After a gap it continues from now and never makes up missed ticks."""
        self._scheduler = use_scheduler(self._scheduler)
        rospy.loginfo("safety filter for %s at %.0f Hz, %s, %s", self.config.name, self.config.tick_hz, self._scheduler,
                      "dry run" if self.filter.dry_run else "inactive")
        every, pace = max(1, int(self.config.tick_hz / self.config.status_hz)), self._pace
        pace.begin()
        while not rospy.is_shutdown():
            output, stamp = self.tick()
            try:
                self.adapter.send(output.arms, stamp)
                self._last = output.status
                self._transitions.note(output.status)
                if output.status_changed or pace.ticks % every == 0:
                    self._status.publish(conversions.status_message(output.status, self._frames))
            except rospy.ROSException:
                if not node_ending():     # topics close before the loop learns of the shutdown
                    raise
            pace.wait()

    def tick(self) -> Tuple[FilterOutput, float]:
        """Runs one tick of the filter.

        Both times are taken under the lock. Everything handed over before it, such as a dead-man message, is then older than the
        tick and does not seem to come from the future, which the filter would have to distrust.

        Returns:
            The filter's output and ROS time, s.
        """
        with self._lock:
            now, stamp = self._pace.tick(), rospy.Time.now().to_sec()
            self._pace.calm()
            return self.filter.tick(now, stamp), stamp

    def _report(self) -> Tuple[int, str, Dict[str, object]]:
        status = self._last
        if status is None:
            return DiagnosticStatus.WARN, "not ticking yet", {}
        values: Dict[str, object] = {"state": status.state.name, "scheduler": self._scheduler, **self._pace.report(),
                                     "log_lines_lost": self._log.lost,
                                     **{f"count/{name}": count for name, count in status.counters.items()}}
        with self._lock:
            speaking = self.filter.deadman_publishers(time.monotonic())
        values["deadman"] = ", ".join(speaking)
        if self._graph.problem:
            level = DiagnosticStatus.WARN if self.filter.dry_run else DiagnosticStatus.ERROR
            return level, self._graph.problem, values
        if len(speaking) > 1:        # the one in use may be neither the one held in the hand nor the one being watched
            return (max(LEVELS[status.state], DiagnosticStatus.WARN),
                    f"{' and '.join(speaking)} publish the deadman, and one is enough; {status.message}", values)
        return LEVELS[status.state], status.message, values


def refuse_second_filter() -> None:
    """Raises HybridVLAError when another node offers the filter's services, or may offer them."""
    try:
        owner = rosgraph.Master(ASKS).lookupService(asked_name(ACTIVATE))
    except (rosgraph.MasterException, OSError):
        return          # nobody does, or there is no master yet: init_node waits for one, and this check runs again then
    refuse_if_running("another safety filter", owner)


def main() -> None:
    from dataclasses import replace

    config = load_file(RobotConfig, package_path(require_parameter("robot_config")))
    scale = number_parameter("speed_scale", config.speed_scale)
    door = str(rospy.get_param("~door", "")).strip() or config.door
    node = SafetyNode(replace(config, speed_scale=scale, door=door), rospy.get_param("~dry_run", True) is not False,
                      str(rospy.get_param("~scheduler", "fifo")))
    if node.filter.dry_run:
        rospy.logwarn("%s", DRY)
    node.spin()
