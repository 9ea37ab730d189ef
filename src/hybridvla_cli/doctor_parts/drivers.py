"""Judges the robot's own driver: which controller runs and how stiff it is (Franka), mode and motors (AgileX)."""
from __future__ import annotations

from typing import TYPE_CHECKING, Iterator

from hybridvla_cli.doctor_parts.findings import FAILURE, OK, WARNING, Finding
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.franka import FrankaConfig

if TYPE_CHECKING:
    from hybridvla_cli.doctor_parts.graph import Facts

STATE_CONTROLLER = "franka_state_controller"
SWITCH = "rosservice call /controller_manager/switch_controller"
#: A setting equals the configured one if it differs by at most this share.
SAME = 1e-3


def driver_findings(facts: Facts, robot: RobotConfig) -> Iterator[Finding]:
    """Yields the findings of a Franka or AgileX driver; none for another robot, and none if no driver runs."""
    if not any(facts.publishers.get(arm.topics.get("joint_states", "")) for arm in robot.arms):
        return
    if robot.franka is not None:
        yield from _franka(facts, robot.franka, robot.door == "cartesian")
    for arm in robot.arms if robot.agilex is not None else ():
        topic = arm.topics["robot_state"]
        if topic not in facts.arms:
            yield Finding("driver", FAILURE, f"nobody publishes {topic}: it is unknown whether arm {arm.name} is enabled, and "
                                             "the filter does not move it",
                          "roslaunch piper start_ms_piper.launch mode:=1 auto_enable:=true")
        elif facts.arms[topic]:
            yield Finding("driver", FAILURE, f"arm {arm.name} takes no commands: {facts.arms[topic]}",
                          "rosservice call /hybridvla/robot/enable, once the cause is gone; this closes both grippers")
        else:
            yield Finding("driver", OK, f"arm {arm.name} reports no fault and no leader")


def _franka(facts: Facts, franka: FrankaConfig, cartesian: bool) -> Iterator[Finding]:
    if facts.controllers is None:
        yield Finding("controller", FAILURE, "/controller_manager/list_controllers does not answer: it is unknown which "
                                             "controller has the arm", "start franka_control with its own launch file")
        return
    ours = franka.impedance_controller if cartesian else franka.trajectory_controller
    state = facts.controllers.get(ours, "not loaded")
    others = [name for name, found in facts.controllers.items()
              if found == "running" and name not in (franka.impedance_controller, franka.trajectory_controller, STATE_CONTROLLER)]
    if others:
        yield Finding("controller", FAILURE, f"{others[0]} is running and not ours: it holds the arm, and the filter's start-up "
                      "waits until it stops", f"{SWITCH} \"{{stop_controllers: [{others[0]}], strictness: 2}}\"")
    if facts.controllers.get(STATE_CONTROLLER) != "running":
        yield Finding("controller", FAILURE, f"{STATE_CONTROLLER} is not running: no state of the arm arrives",
                      f"{SWITCH} \"{{start_controllers: [{STATE_CONTROLLER}], strictness: 2}}\"")
    if state != "running" and facts.dry_run is False:
        yield Finding("controller", FAILURE, f"{ours} is {state}: the arm does not follow the filter",
                      "hybridvla watch names the step of the start-up that fails; it is tried again every second. After a fault: "
                      "rosservice call /hybridvla/robot/recover")
    elif state != "running":
        why = "this is a dry run" if facts.dry_run else "no filter runs"
        yield Finding("controller", OK, f"{ours} is {state}, because {why}; an armed filter starts it")
    else:
        yield Finding("controller", OK, f"{ours} is running")
        if cartesian:
            yield from _stiffness(facts, franka)


def _stiffness(facts: Facts, franka: FrankaConfig) -> Iterator[Finding]:
    node = franka.compliance_node
    wanted = {"translational_stiffness": (franka.translational_stiffness_n_m, "translational_stiffness_n_m", "N/m"),
              "rotational_stiffness": (franka.rotational_stiffness_nm_rad, "rotational_stiffness_nm_rad", "N m/rad"),
              "nullspace_stiffness": (franka.nullspace_stiffness_nm_rad, "nullspace_stiffness_nm_rad", "N m/rad")}
    wrong = False
    for name, (value, key, unit) in wanted.items():
        if name not in facts.stiffness:
            yield Finding("stiffness", WARNING, f"{node} does not announce {name}: it is unknown how hard the arm pushes",
                          f"rosrun dynamic_reconfigure dynparam get {node}")
            return
        found = facts.stiffness[name]
        if abs(found - value) > SAME * value:
            wrong = True
            yield Finding("stiffness", FAILURE, f"{name} is {found:g} {unit}, and franka.{key} is {value:g}: the filter "
                                                "assumes another push than the arm has",
                          f"rosrun dynamic_reconfigure dynparam set {node} {name} {value:g}; an arm led by "
                          "hand (/hybridvla/robot/takeover) is soft on purpose")
    if not wrong:
        yield Finding("stiffness", OK, ", ".join(f"{value:g} {unit}" for value, _, unit in wanted.values()) + ", as configured")
