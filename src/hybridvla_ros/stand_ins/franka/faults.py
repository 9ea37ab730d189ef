"""Faults on request, and the judge: `/stand_in/*` services of the FR3's stand-in. None of them exists on a real rig."""
from __future__ import annotations

import json
from typing import Callable, Optional

import numpy as np
import rospy
from std_srvs.srv import SetBool, SetBoolRequest, SetBoolResponse, Trigger, TriggerRequest, TriggerResponse

from hybridvla.srv import (
    ResetScene,
    ResetSceneRequest,
    ResetSceneResponse,
    RigReport,
    RigReportRequest,
    RigReportResponse,
)
from hybridvla_ros.stand_ins.franka.robot import FrankaRobot
from hybridvla_ros.stand_ins.judging import judge

HAND_N = 12.0          # a person's push, along +y
DESK_SHIFT_M = 0.02    # shift of the end-effector frame in Desk


class Faults:
    def __init__(self, robot: FrankaRobot) -> None:
        self._robot = robot
        self._trigger("reflex", lambda: robot.fail("cartesian_reflex"))
        self._trigger("drop_object", robot.drop_held)
        self._switch("user_stop", robot.user_stop)
        self._switch("guiding", robot.guide)
        self._switch("gripper_stuck", lambda on: setattr(robot, "gripper_stuck", on))
        self._switch("state_silent", lambda on: setattr(robot, "state_silent", on))
        self._switch("ee_frame", self._ee_frame)
        self._switch("push", lambda on: setattr(robot.drive, "hand_force", np.array([0.0, HAND_N * on, 0.0])))
        rospy.Service("/stand_in/reset_scene", ResetScene, self._reset)
        rospy.Service("/stand_in/report", RigReport, self._report)

    def _trigger(self, name: str, act: Callable[[], Optional[bool]]) -> None:
        def call(_request: TriggerRequest) -> TriggerResponse:
            done = act()
            return TriggerResponse(done is not False, "" if done is not False else "nothing to do")
        rospy.Service(f"/stand_in/{name}", Trigger, call)

    def _switch(self, name: str, act: Callable[[bool], None]) -> None:
        def call(request: SetBoolRequest) -> SetBoolResponse:
            act(request.data)
            return SetBoolResponse(True, "")
        rospy.Service(f"/stand_in/{name}", SetBool, call)

    def _ee_frame(self, on: bool) -> None:
        with self._robot.lock:
            self._robot.drive.ne_t_ee = np.eye(4)
            self._robot.drive.ne_t_ee[2, 3] = DESK_SHIFT_M * on

    def _reset(self, request: ResetSceneRequest) -> ResetSceneResponse:
        if request.seed < 0:
            return ResetSceneResponse(False, f"the seed is {request.seed}; use 0 or more")
        self._robot.reset(request.seed)
        return ResetSceneResponse(True, f"scene {request.seed}, arm at its start pose")

    def _report(self, request: RigReportRequest) -> RigReportResponse:
        """Answers as in RigReport.srv; the scene's true state is for judges only."""
        robot = self._robot
        with robot.lock:
            poses, joints, world = robot.rig.monitor, robot.joint_door.monitor, robot.rig.world
            broken = poses.counts + joints.counts
            report = {"seed": robot.seed, "time": robot.time, "mode": robot.mode, "running": sorted(robot.running),
                      "force": robot.force.tolist(), "upper_force": robot.upper_force.tolist(), "load": robot.drive.load[0],
                      "stiffness": robot.drive.stiffness.tolist(), "joints": robot.drive.joints.tolist(),
                      "equilibrium": robot.drive.target_position.tolist(), "violations_by_name": dict(broken),
                      "last_violation": joints.last_violation or poses.last_violation, "world": world.report()}
            answer = RigReportResponse(True, "", False, poses.targets + joints.commands, sum(broken.values()),
                                       json.dumps(report))
            return judge(answer, world, request.instruction)
