"""The safety filter node: a fixed rate on monotonic time around `SafetyFilter`. Imports neither torch nor a model."""
from __future__ import annotations

import os
import threading
import time
from typing import Any, Dict, Tuple

import rosgraph
import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from dynamic_reconfigure.server import Server
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, SetBoolResponse, Trigger, TriggerResponse

from hybridvla.cfg import SafetyConfig
from hybridvla.msg import ActionProposal, PolicyHeartbeat, SafetyStatus
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import ArmState
from hybridvla_core.errors import ConfigurationError, HybridVLAError
from hybridvla_core.safety.config import RobotConfig
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.status import State
from hybridvla_ros import adapters, conversions
from hybridvla_ros.node_support import Diagnostics, number_parameter, package_path, require_parameter
from hybridvla_ros.operator_view import Operator

LEVELS = {State.ACTIVE: DiagnosticStatus.OK, State.INACTIVE: DiagnosticStatus.OK, State.HOLDING: DiagnosticStatus.WARN,
          State.RECOVERING: DiagnosticStatus.WARN, State.STOPPED: DiagnosticStatus.ERROR}
GRAPH_CHECK_S = 1.0
POLICY_PATIENCE_S = 0.4
MIN_SPACING = 0.98


class SafetyNode:
    """All calls of the filter go through one lock; messages are only handed over, never interpreted here."""

    def __init__(self, config: RobotConfig, dry_run: bool) -> None:
        refuse_second_filter()
        self.config = config
        self.filter = SafetyFilter(config, dry_run=dry_run)
        self._lock = threading.Lock()
        self._frames = {arm.name: arm.base_frame for arm in config.arms}
        self._status = rospy.Publisher("/hybridvla/safety/status", SafetyStatus, queue_size=5, tcp_nodelay=True)
        self._last: Any = None
        self._graph_problem = ""
        self._policy_heard, self._policy_says = float("-inf"), ""
        self._require_policy = bool(rospy.get_param("~require_policy", True))
        self._ticks = self._overruns = 0
        self._longest_gap = 0.0
        self.operator = Operator(self.filter, self._lock)
        self.adapter = adapters.make(config, self._on_state, self.operator)
        rospy.Subscriber(config.topics.get("proposal", "/hybridvla/policy/proposal"), ActionProposal, self._on_proposal,
                         queue_size=10, tcp_nodelay=True)
        rospy.Subscriber(config.topics.get("heartbeat", "/hybridvla/policy/heartbeat"), PolicyHeartbeat,
                         self._on_heartbeat, queue_size=10, tcp_nodelay=True)
        rospy.Subscriber(config.topics.get("deadman", "/hybridvla/safety/deadman"), Bool, self._on_deadman, queue_size=5)
        self._services()
        self._reconfigure = Server(SafetyConfig, self._on_reconfigure)
        self._diagnostics = Diagnostics("filter", self._report)
        threading.Thread(target=self._watch_graph, daemon=True).start()

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
            return
        with self._lock:
            accepted = self.filter.on_proposal(proposal, time.monotonic(), publisher)
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
            self.filter.on_deadman(message.data, time.monotonic())

    def _services(self) -> None:
        rospy.Service("/hybridvla/safety/activate", SetBool, self._activate)
        for name in ("stop", "resume", "reenter"):
            rospy.Service(f"/hybridvla/safety/{name}", Trigger, self._trigger(name))
        rospy.Service("/hybridvla/robot/go_to_start", Trigger, self._go_to_start)

    def _policy_missing(self) -> str:
        """Why no policy could take over now; a filter that was activated early would move when the model comes up."""
        if not self._require_policy:
            return ""
        if time.monotonic() - self._policy_heard > self.config.watchdogs.heartbeat_s:
            return "no policy is running (no heartbeat); start it first"
        return f"the policy is not READY: {self._policy_says}" if self._policy_says else ""

    def _activate(self, request: Any) -> SetBoolResponse:
        deadline = time.monotonic() + POLICY_PATIENCE_S    # a heartbeat may just be on its way
        missing = self._policy_missing() if request.data else ""
        while missing and time.monotonic() < deadline:
            time.sleep(0.02)
            missing = self._policy_missing()
        if missing:
            rospy.loginfo("activate refused: %s", missing)
            return SetBoolResponse(False, missing)
        with self._lock:
            done, message = self.filter.activate(request.data, time.monotonic())
        rospy.loginfo("activate %s: %s", request.data, message)
        return SetBoolResponse(done, message)

    def _trigger(self, name: str):
        def call(_request: Any) -> TriggerResponse:
            with self._lock:
                done, message = getattr(self.filter, name)(time.monotonic())
            rospy.loginfo("%s: %s", name, message)
            return TriggerResponse(done, message)
        return call

    def _go_to_start(self, _request: Any) -> TriggerResponse:
        """Deactivate, let the robot's own slow motion run, and leave the filter inactive."""
        topic = self.config.topics.get("robot_go_to_start", "")
        move = getattr(self.adapter, "go_to_start", None)
        if not topic and move is None:
            return TriggerResponse(False, f"robot {self.config.name} names no topics.robot_go_to_start")
        problem = self.operator.deactivate()
        if problem:
            return TriggerResponse(False, problem)
        if move is not None:
            return TriggerResponse(*move())
        try:
            answer = rospy.ServiceProxy(topic, Trigger)()
        except rospy.ServiceException as error:
            return TriggerResponse(False, f"{topic} failed: {error}; is the robot's driver running?")
        return TriggerResponse(answer.success, answer.message)

    def _on_reconfigure(self, values: Any, _level: int) -> Any:
        if self._ticks == 0 and self._last is None:
            # The server's first call carries its defaults; what the launch file said stands.
            values.speed_scale, values.dry_run = self.config.speed_scale, self.filter.dry_run
            return values
        with self._lock:
            try:
                self.filter.set_speed_scale(values.speed_scale)
                self.filter.set_dry_run(values.dry_run)
            except ConfigurationError as error:
                rospy.logwarn("%s", error)
                values.dry_run = self.filter.dry_run
        return values

    # The loop ------------------------------------------------------------------------------------------------------

    def spin(self) -> None:
        """Tick at the configured rate. After a gap it goes on from now: missed ticks are never made up."""
        rospy.loginfo("safety filter for %s at %.0f Hz, %s, %s", self.config.name, self.config.tick_hz, scheduler(),
                      "dry run" if self.filter.dry_run else "inactive")
        period, following, before = 1.0 / self.config.tick_hz, time.monotonic(), time.monotonic()
        while not rospy.is_shutdown():
            now, stamp = time.monotonic(), rospy.Time.now().to_sec()
            self._longest_gap = max(self._longest_gap, now - before)
            before = now
            with self._lock:
                output = self.filter.tick(now)
            self.adapter.send(output.arms, stamp)
            self._ticks += 1
            self._last = output.status
            if output.status_changed or self._ticks % max(1, int(self.config.tick_hz / self.config.status_hz)) == 0:
                self._status.publish(conversions.status_message(output.status, self._frames))
            # Never sooner than nearly a period after this tick: a late tick must not make the next step a faster one.
            following = max(following + period, now + MIN_SPACING * period)
            wait = following - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            else:
                self._overruns += 1
                following = time.monotonic()

    def _watch_graph(self) -> None:
        master = rosgraph.Master(rospy.get_name())
        while not rospy.is_shutdown():
            time.sleep(GRAPH_CHECK_S)
            try:
                problem = self.adapter.other_publishers(master.getSystemState())
            except (OSError, rosgraph.MasterException) as error:
                problem = f"the master does not answer ({error})"
            if problem and problem != self._graph_problem:
                rospy.logerr("%s", problem)
                if "published by" in problem:
                    with self._lock:
                        self.filter.stop(time.monotonic())
            self._graph_problem = problem

    def _report(self) -> Tuple[int, str, Dict[str, object]]:
        status = self._last
        if status is None:
            return DiagnosticStatus.WARN, "not ticking yet", {}
        values: Dict[str, object] = {"state": status.state.name, "overruns": self._overruns, "ticks": self._ticks,
                                     "longest_gap_ms": round(self._longest_gap * 1e3, 1), **status.counters}
        if self._graph_problem:
            return DiagnosticStatus.ERROR, self._graph_problem, values
        return LEVELS[status.state], status.message, values


def refuse_second_filter() -> None:
    """Raises HybridVLAError when another node already offers the filter's services."""
    try:
        owner = rosgraph.Master(rospy.get_name()).lookupService("/hybridvla/safety/activate")
    except rosgraph.MasterException:
        return
    raise HybridVLAError(f"another safety filter is running ({owner}); stop it before starting this one")


def scheduler() -> str:
    """Ask for SCHED_FIFO and say what we got."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))
    except (PermissionError, OSError):
        return "ordinary scheduler (SCHED_FIFO is not permitted)"
    return "SCHED_FIFO"


def main() -> None:
    from dataclasses import replace

    config = load_file(RobotConfig, package_path(require_parameter("robot_config")))
    scale = number_parameter("speed_scale", config.speed_scale)
    door = str(rospy.get_param("~door", "")).strip() or config.door
    node = SafetyNode(replace(config, speed_scale=scale, door=door), bool(rospy.get_param("~dry_run", False)))
    node.spin()
