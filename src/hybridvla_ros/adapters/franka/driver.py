"""Services of franka_control and the controller manager, error recovery and stiffness; each failure gives a sentence."""
from __future__ import annotations

from typing import Dict, Iterable, Sequence

import actionlib
import genpy
import rospy
from dynamic_reconfigure import DynamicReconfigureException
from dynamic_reconfigure.client import Client

from hybridvla_core.errors import ConfigurationError, HybridVLAError
from hybridvla_core.robots.franka import FrankaConfig
from hybridvla_ros.messages.services import ask

SERVICE_S = 3.0
RECOVERY_S = 15.0
#: How long the driver may take to answer a call, including a switch of controllers, s.
SWITCHED_S = 15.0
CONTROLLER_MANAGER, CONTROL = "/controller_manager", "/franka_control"


def messages() -> None:
    """Raises ConfigurationError where the driver's message packages are not installed."""
    try:
        import controller_manager_msgs.srv  # noqa: F401
        import franka_gripper.msg  # noqa: F401
        import franka_msgs.msg  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(f"the driver's messages are not installed ({error.name}); set DRIVER_WORKSPACE to the "
                                 "devel folder of franka_ros's workspace and run `make setup`") from error


class DriverError(HybridVLAError):
    """A failed call to the driver; the text names the call and what to do."""


class FrankaDriver:
    """Blocking calls: never call from the control thread."""

    def __init__(self, franka: FrankaConfig) -> None:
        messages()
        self._franka = franka

    def _call(self, service: str, kind: type, **fields: object) -> genpy.Message:
        try:
            return ask(service, kind, service_s=SERVICE_S, answer_s=SWITCHED_S, **fields)
        except (rospy.ROSException, rospy.ServiceException) as error:
            raise DriverError(f"{service} does not answer ({error}); is the driver running?") from error

    # Controllers ---------------------------------------------------------------------------------------------------

    def controllers(self) -> Dict[str, str]:
        """Returns name -> state of every loaded controller."""
        from controller_manager_msgs.srv import ListControllers

        answer = self._call(f"{CONTROLLER_MANAGER}/list_controllers", ListControllers)
        return {entry.name: entry.state for entry in answer.controller}

    def load(self, name: str) -> None:
        from controller_manager_msgs.srv import LoadController

        if name in self.controllers():
            return
        if not self._call(f"{CONTROLLER_MANAGER}/load_controller", LoadController, name=name).ok:
            raise DriverError(f"controller {name} cannot be loaded; are its parameters loaded (/{name}/type)?")

    def switch(self, start: Sequence[str] = (), stop: Iterable[str] = ()) -> None:
        """Stops, then starts, in one cycle of the driver; skips controllers that already are in the requested state."""
        from controller_manager_msgs.srv import SwitchController, SwitchControllerRequest

        states = self.controllers()
        stopping = [name for name in stop if states.get(name) == "running"]
        starting = [name for name in start if states.get(name) != "running"]
        if not starting and not stopping:
            return
        answer = self._call(f"{CONTROLLER_MANAGER}/switch_controller", SwitchController, start_controllers=starting,
                            stop_controllers=stopping, strictness=SwitchControllerRequest.STRICT, start_asap=False,
                            timeout=0.0)
        if not answer.ok:
            raise DriverError(f"controllers could not be switched (start {starting or 'none'}, stop {stopping or 'none'}); "
                              f"loaded are {', '.join(sorted(states))}")

    # The robot -----------------------------------------------------------------------------------------------------

    def _configure(self, service: str, kind: type, **fields: object) -> None:
        answer = self._call(f"{CONTROL}/{service}", kind, **fields)
        if not answer.success:
            raise DriverError(f"{CONTROL}/{service} was refused: {answer.error}; it works only while no controller moves the arm")

    def set_load(self, mass_kg: float, center_m: Sequence[float]) -> None:
        """Sets mass, kg, and centre of mass (from the flange, m) of what the robot carries beyond its end effector."""
        from franka_msgs.srv import SetLoad

        self._configure("set_load", SetLoad, mass=mass_kg, F_x_center_load=list(center_m), load_inertia=[0.0] * 9)

    def set_collision(self) -> None:
        from franka_msgs.srv import SetFullCollisionBehavior

        torque, force = list(self._franka.collision_torque_nm), list(self._franka.collision_force_n)
        low_torque = [self._franka.contact_share * value for value in torque]
        low_force = [self._franka.contact_share * value for value in force]
        self._configure(
            "set_full_collision_behavior", SetFullCollisionBehavior,
            lower_torque_thresholds_acceleration=low_torque, upper_torque_thresholds_acceleration=torque,
            lower_torque_thresholds_nominal=low_torque, upper_torque_thresholds_nominal=torque,
            lower_force_thresholds_acceleration=low_force, upper_force_thresholds_acceleration=force,
            lower_force_thresholds_nominal=low_force, upper_force_thresholds_nominal=force)

    def set_stiffness(self, translational: float, rotational: float, nullspace: float) -> None:
        """Sets the stiffness of the Cartesian impedance controller; it must report back what was asked for."""
        node = f"/{self._franka.impedance_controller}/dynamic_reconfigure_compliance_param_node"
        wanted = {"translational_stiffness": translational, "rotational_stiffness": rotational,
                  "nullspace_stiffness": nullspace}
        client = None
        try:
            client = Client(node, timeout=SERVICE_S)
            result = client.update_configuration(wanted)
        except (rospy.ROSException, rospy.ServiceException, DynamicReconfigureException) as error:
            raise DriverError(f"{node} does not answer ({error}); is {self._franka.impedance_controller} loaded?") from error
        finally:
            if client is not None:
                client.close()
        wrong = [name for name, value in wanted.items() if not abs((result or {}).get(name, float("nan")) - value) < 1e-6]
        if wrong:
            raise DriverError(f"{node} did not take {wrong[0]} = {wanted[wrong[0]]}; it allows less")

    def soft(self) -> None:
        """Sets no stiffness: the arm floats and can be led by hand."""
        self.set_stiffness(0.0, 0.0, 0.0)

    def stiff(self) -> None:
        """Sets the configured stiffness."""
        self.set_stiffness(self._franka.translational_stiffness_n_m, self._franka.rotational_stiffness_nm_rad,
                           self._franka.nullspace_stiffness_nm_rad)

    def recover(self) -> None:
        """Runs automatic error recovery; it restarts all running controllers, so stop them first."""
        from franka_msgs.msg import ErrorRecoveryAction, ErrorRecoveryGoal

        client = actionlib.SimpleActionClient(f"{CONTROL}/error_recovery", ErrorRecoveryAction)
        if not client.wait_for_server(rospy.Duration(SERVICE_S)):
            raise DriverError(f"{CONTROL}/error_recovery does not answer; is the driver running?")
        client.send_goal(ErrorRecoveryGoal())
        if not client.wait_for_result(rospy.Duration(RECOVERY_S)):
            client.cancel_goal()
            raise DriverError(f"the error recovery did not end within {RECOVERY_S:.0f} s; look at Desk")
        if client.get_state() != actionlib.GoalStatus.SUCCEEDED:
            raise DriverError(f"the error recovery failed: {client.get_goal_status_text() or 'no reason given'}; a joint at "
                              "its limit must be moved by hand")
