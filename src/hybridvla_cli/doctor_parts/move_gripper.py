"""Moves the grippers a little, the arms not at all; prints what was reported. Runs as its own process beside the nodes.

usage: move_gripper.py ROBOT.yaml look|move
"""
from __future__ import annotations

import contextlib
import json
import math
import secrets
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

import rosgraph
import rospy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from std_srvs.srv import SetBool

from hybridvla.msg import ActionProposal, PolicyHeartbeat, SafetyStatus
from hybridvla_cli.doctor_parts.gripper import Move, refusal, target, way
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import ArmTarget, DeltaBase, Heartbeat, PolicyState, Proposal
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.graph_names import ACTIVATE, HEARTBEAT, PROPOSAL, STATUS
from hybridvla_core.robots.topics import joint_topics
from hybridvla_core.safety.status import State
from hybridvla_ros.adapters.franka.gripper import BELOW_MAX_M
from hybridvla_ros.messages import conversions
from hybridvla_ros.messages.arm_reader import ArmReader, fingers_of
from hybridvla_ros.messages.sources import source_of

LISTEN_S, ANSWER_S = 1.5, 5.0
MOVE_S, REST_S = 6.0, 0.6        # longest move, and how long the gripper must rest
SLOWEST_M_S = 0.03               # upper bound on the move's speed, if the gripper takes one
BEAT_S = 0.1


class Mover:
    """Listens to readings and to the filter, refuses, and moves. Call `refused` before `move`."""

    def __init__(self, robot: RobotConfig) -> None:
        self._robot = robot
        self._readers = {arm.name: ArmReader(arm.name, arm.joint_names, fingers_of(arm)) for arm in robot.arms}
        self.status: Any = None
        for topic, names in joint_topics(robot.arms).items():
            rospy.Subscriber(topic, JointState, self._on_joints, callback_args=names, queue_size=2)
        rospy.Subscriber(STATUS, SafetyStatus, lambda message: setattr(self, "status", message), queue_size=1)
        # Made early, so that they are connected before the first message, which would otherwise be lost.
        self._topics = {arm.name: rospy.Publisher(arm.topics["gripper_command"], Float64, queue_size=1)
                        for arm in robot.arms if way(arm) == "topic"}
        time.sleep(LISTEN_S)

    def _on_joints(self, message: JointState, names: Sequence[str]) -> None:
        for name in names:
            self._readers[name].joints(message.name, message.position, (), time.monotonic(), source_of(message))

    def plan(self) -> List[Move]:
        """Returns the move that each gripper would be commanded to make now."""
        openings = {name: reader.opening for name, reader in self._readers.items()}
        return [Move(name, opening, target(opening)) for name, opening in openings.items()]

    def refused(self) -> Sequence[str]:
        """Returns why nothing may be moved, and the cure; two empty strings if the grippers may move."""
        publishers, _, _ = rosgraph.Master(rospy.get_name()).getSystemState()
        unread = [move.arm for move in self.plan() if math.isnan(move.before)]
        if unread:
            return (f"no reading of arm {unread[0]}'s gripper arrives; {self._readers[unread[0]].gripper_problem}".rstrip("; "),
                    "start the robot's driver, and compare topics.finger_joints with what it publishes")
        state = State(self.status.state).name if self.status is not None else ""
        others = {topic: [node for node in nodes if node != rospy.get_name()] for topic, nodes in publishers}
        return refusal(others, state, self.status is not None and self.status.dry_run, self._robot)

    def move(self) -> List[Move]:
        """Moves every gripper and waits until they rest. Raises HybridVLAError if a driver or the filter does not answer."""
        plan = self.plan()
        asked = {move.arm: move.asked for move in plan}
        through = any(way(arm) == "filter" for arm in self._robot.arms)
        with self._active() if through else contextlib.nullcontext():
            if through:
                self._propose(asked)
            for arm in self._robot.arms:
                if way(arm) == "topic":
                    self._topics[arm.name].publish(Float64(asked[arm.name]))
                elif way(arm) == "action":
                    self._act(arm.topics["gripper_move"], asked[arm.name] * arm.gripper.max_width_m - BELOW_MAX_M,
                              min(SLOWEST_M_S, arm.gripper.speed_m_s))
            self._wait()
        return [replace(move, after=self._readers[move.arm].opening) for move in plan]

    def _wait(self) -> None:
        """Waits until the openings have rested for a while."""
        last: List[float] = []
        since, end = time.monotonic(), time.monotonic() + MOVE_S
        while time.monotonic() < end and time.monotonic() - since < REST_S:
            time.sleep(0.05)
            now = [round(reader.opening, 2) for reader in self._readers.values()]
            if now != last:
                last, since = now, time.monotonic()

    def _act(self, name: str, width: float, speed: float) -> None:
        import actionlib
        from franka_gripper.msg import MoveAction, MoveGoal

        client = actionlib.SimpleActionClient(name, MoveAction)
        if not client.wait_for_server(rospy.Duration(ANSWER_S)):
            raise HybridVLAError(f"{name} does not answer; is franka_gripper running (load_gripper:=true)?")
        client.send_goal(MoveGoal(width=max(0.0, width), speed=speed))
        client.wait_for_result(rospy.Duration(MOVE_S))

    # Through the filter ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _active(self) -> Iterator[None]:
        """Keeps the filter active meanwhile, and sends its heartbeat."""
        self._epoch, self._over = secrets.randbits(60) | 1, False
        self._proposals = rospy.Publisher(PROPOSAL, ActionProposal, queue_size=1)
        self._beats = rospy.Publisher(HEARTBEAT, PolicyHeartbeat, queue_size=1)
        threading.Thread(target=self._beat, name="the filter's heartbeat", daemon=True).start()
        rospy.wait_for_service(ACTIVATE, ANSWER_S)
        activate = rospy.ServiceProxy(ACTIVATE, SetBool)
        try:
            end = time.monotonic() + ANSWER_S
            answer = activate(True)
            while not answer.success and time.monotonic() < end:       # the first heartbeats may not have arrived yet
                time.sleep(0.2)
                answer = activate(True)
            if not answer.success:
                raise HybridVLAError(f"the filter does not become active: {answer.message}")
            time.sleep(0.3)                                            # for a status with the arms' current poses
            yield
        finally:
            activate(False)
            self._over = True

    def _beat(self) -> None:
        while not self._over and not rospy.is_shutdown():
            self._beats.publish(conversions.heartbeat_message(Heartbeat(self._epoch, 0, 1, PolicyState.WAITING)))
            time.sleep(BEAT_S)

    def _propose(self, asked: Dict[str, float]) -> None:
        """Proposes that the arms stay at their measured poses and the grippers move to the commanded openings."""
        poses = {arm.name: conversions.pose_contract(arm.measured) for arm in self.status.arms}
        now = rospy.Time.now().to_sec()
        targets = tuple(ArmTarget(arm.name, arm.base_frame, poses[arm.name], now, poses[arm.name], DeltaBase.MEASURED,
                                  asked[arm.name]) for arm in self._robot.arms)
        self._proposals.publish(conversions.proposal_message(
            Proposal(now, self._epoch, 1, 1, "move the gripper a little", MOVE_S + 2.0, targets, observation_age=0.01)))


def main(file: str, what: str) -> Dict[str, Any]:
    """Returns the doctor's answer: a refusal with its cure, and the moves; `after` is NaN if it only looked."""
    robot = load_file(RobotConfig, Path(file))
    if not rosgraph.is_master_online():
        return {"refused": [f"no ROS master answers at {rosgraph.get_master_uri()}", "start the robot's driver"], "moves": []}
    rospy.init_node("hybridvla_doctor_gripper", anonymous=True, disable_signals=True)
    mover = Mover(robot)
    refused = list(mover.refused())
    if refused[0]:
        return {"refused": refused, "moves": []}
    try:
        moves = mover.move() if what == "move" else mover.plan()
    except (HybridVLAError, rospy.ROSException, rospy.ServiceException) as error:
        return {"refused": [str(error), "fix this, and ask again"], "moves": []}
    return {"refused": ["", ""], "moves": [asdict(move) for move in moves]}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:3])))
