"""Services of franka_control and of the controller manager, error recovery, and the controller's reconfigure server."""
from __future__ import annotations

import copy
import time
from types import SimpleNamespace
from typing import Dict, Optional

import actionlib
import numpy as np
import rospy
from controller_manager_msgs.msg import ControllerState
from controller_manager_msgs.srv import (
    ListControllers,
    ListControllersRequest,
    ListControllersResponse,
    LoadController,
    LoadControllerRequest,
    LoadControllerResponse,
    SwitchController,
    SwitchControllerRequest,
    SwitchControllerResponse,
    UnloadController,
    UnloadControllerResponse,
)
from dynamic_reconfigure.server import Server
from franka_msgs.msg import ErrorRecoveryAction, ErrorRecoveryGoal, ErrorRecoveryResult
from franka_msgs.srv import (
    SetEEFrame,
    SetEEFrameRequest,
    SetEEFrameResponse,
    SetFullCollisionBehavior,
    SetFullCollisionBehaviorRequest,
    SetFullCollisionBehaviorResponse,
    SetLoad,
    SetLoadRequest,
    SetLoadResponse,
)

from hybridvla.cfg import SafetyConfig
from hybridvla_ros.stand_ins.franka.robot import FrankaRobot
from hybridvla_sim.fr3.drive import DEFAULT_STIFFNESS

RECOVERY_S = 0.4
IMPEDANCE = "cartesian_impedance_example_controller"
#: Name, default, maximum: franka_example_controllers/cfg/compliance_param.cfg.
COMPLIANCE = (("translational_stiffness", DEFAULT_STIFFNESS[0], 400.0), ("rotational_stiffness", DEFAULT_STIFFNESS[1], 30.0),
              ("nullspace_stiffness", DEFAULT_STIFFNESS[2], 100.0))


def compliance_type() -> SimpleNamespace:
    """Returns what a generated dynamic_reconfigure module would hold, modelled on a generated one."""
    description = copy.deepcopy(SafetyConfig.config_description)
    pattern = next(entry for entry in description["parameters"] if entry["type"] == "double")
    description["groups"] = []
    description["parameters"] = [{**pattern, "name": name, "description": name.replace("_", " "), "default": default,
                                  "min": 0.0, "max": most} for name, default, most in COMPLIANCE]
    names = [name for name, _, _ in COMPLIANCE]
    return SimpleNamespace(
        config_description=description, defaults={name: value for name, value, _ in COMPLIANCE},
        min=dict.fromkeys(names, 0.0), max={name: most for name, _, most in COMPLIANCE}, level=dict.fromkeys(names, 0),
        all_level=0)


class Services:
    def __init__(self, robot: FrankaRobot) -> None:
        self._robot = robot
        self._reconfigure: Optional[Server] = None
        rospy.Service("/controller_manager/list_controllers", ListControllers, self._list)
        rospy.Service("/controller_manager/load_controller", LoadController, self._load)
        rospy.Service("/controller_manager/unload_controller", UnloadController,
                      lambda request: UnloadControllerResponse(robot.unload(request.name)))
        rospy.Service("/controller_manager/switch_controller", SwitchController, self._switch)
        rospy.Service("/franka_control/set_load", SetLoad, self._set_load)
        rospy.Service("/franka_control/set_EE_frame", SetEEFrame, self._set_ee)
        rospy.Service("/franka_control/set_full_collision_behavior", SetFullCollisionBehavior, self._set_collision)
        self._recovery = actionlib.SimpleActionServer("/franka_control/error_recovery", ErrorRecoveryAction,
                                                      execute_cb=self._recover, auto_start=False)
        self._recovery.start()

    def _list(self, _request: ListControllersRequest) -> ListControllersResponse:
        with self._robot.lock:
            return ListControllersResponse([
                ControllerState(name=name, state="running" if name in self._robot.running else "initialized",
                                type=str(rospy.get_param(f"/{name}/type", ""))) for name in sorted(self._robot.loaded)])

    def _load(self, request: LoadControllerRequest) -> LoadControllerResponse:
        done = self._robot.load(request.name, rospy.has_param(f"/{request.name}/type"))
        if not done:
            rospy.logerr("Could not load controller '%s': loaded already, or its type was not specified", request.name)
        elif request.name == IMPEDANCE and self._reconfigure is None:
            self._reconfigure = Server(compliance_type(), self._on_compliance,
                                       f"/{IMPEDANCE}/dynamic_reconfigure_compliance_param_node")
        return LoadControllerResponse(done)

    def _switch(self, request: SwitchControllerRequest) -> SwitchControllerResponse:
        strict = request.strictness == SwitchControllerRequest.STRICT
        return SwitchControllerResponse(self._robot.switch(request.start_controllers, request.stop_controllers, strict))

    def _on_compliance(self, config: Dict[str, float], _level: int) -> Dict[str, float]:
        with self._robot.lock:
            self._robot.drive.stiffness = np.array([config[name] for name, _, _ in COMPLIANCE])
        return config

    def _set_load(self, request: SetLoadRequest) -> SetLoadResponse:
        def change() -> None:
            self._robot.drive.load = (request.mass, np.array(request.F_x_center_load))
        error = self._robot.configure(change)
        return SetLoadResponse(not error, error)

    def _set_ee(self, request: SetEEFrameRequest) -> SetEEFrameResponse:
        def change() -> None:
            self._robot.drive.ne_t_ee = np.array(request.NE_T_EE).reshape(4, 4).T
        error = self._robot.configure(change)
        return SetEEFrameResponse(not error, error)

    def _set_collision(self, request: SetFullCollisionBehaviorRequest) -> SetFullCollisionBehaviorResponse:
        def change() -> None:
            self._robot.upper_force = np.array(request.upper_force_thresholds_nominal[:3])
        error = self._robot.configure(change)
        return SetFullCollisionBehaviorResponse(not error, error)

    def _recover(self, _goal: ErrorRecoveryGoal) -> None:
        time.sleep(RECOVERY_S)
        error = self._robot.recover()
        if error:
            self._recovery.set_aborted(ErrorRecoveryResult(), error)
        else:
            self._recovery.set_succeeded(ErrorRecoveryResult())
