"""A stand-in for franka_control, franka_gripper and their controllers: same names, types and habits, over a MuJoCo arm.

Behaviour taken from the drivers: `docs/rig_fr3.md`. The `/stand_in/*` services cause faults.
"""
from __future__ import annotations

import time
from typing import Any, List

import numpy as np
import rospy
from franka_msgs.msg import Errors, FrankaState
from geometry_msgs.msg import PoseStamped, WrenchStamped
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots.config import RobotConfig
from hybridvla_ros.runtime.node_support import number_parameter, package_path, require_parameter
from hybridvla_ros.runtime.workers import start_worker
from hybridvla_ros.stand_ins.franka.faults import Faults
from hybridvla_ros.stand_ins.franka.gripper import Gripper
from hybridvla_ros.stand_ins.franka.robot import FrankaRobot, TriggerRate
from hybridvla_ros.stand_ins.franka.services import Services
from hybridvla_ros.stand_ins.sim_cameras import SceneCameras
from hybridvla_sim import tasks
from hybridvla_sim.fr3.drive import F_T_NE
from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.task import Task

STEP_S = 0.005
DEFAULT_PUBLISH_RATE = 30.0     # Hz, franka_control/config/default_controllers.yaml
MERGED_HZ = 30.0                # of /joint_states, joint_state_publisher's rate in franka_control.launch
#: Task whose things are on the table when the parameter ~task is not set.
DEFAULT_TASK = "blocks"
ARM_MASS_EE = 0.73              # kg, the Franka Hand


def columns(matrix: np.ndarray) -> List[float]:
    """Returns a 4 x 4 matrix as franka_ros sends it: column-major."""
    return matrix.T.ravel().tolist()


class FrankaStandIn:
    """Runs physics in real time in one thread; a slow machine makes slow time, not jumps."""

    def __init__(self, config: RobotConfig, task: Task[Rig], arm_id: str, seed: int, image_hz: float) -> None:
        self.robot = FrankaRobot(task, config, seed)
        self.names = [f"{arm_id}_joint{i}" for i in range(1, 8)]
        self._fingers = [f"{arm_id}_finger_joint{i}" for i in (1, 2)]
        self._k_frame = f"{arm_id}_K"
        rate = float(rospy.get_param("/franka_state_controller/publish_rate", DEFAULT_PUBLISH_RATE))
        self._trigger, self._merged = TriggerRate(rate), TriggerRate(MERGED_HZ)

        def publisher(name: str, kind: Any) -> rospy.Publisher:
            return rospy.Publisher(name, kind, queue_size=10)

        self._states = publisher("/franka_state_controller/franka_states", FrankaState)
        self._joints = publisher("/franka_state_controller/joint_states", JointState)
        self._desired = publisher("/franka_state_controller/joint_states_desired", JointState)
        self._f_ext = publisher("/franka_state_controller/F_ext", WrenchStamped)
        self._all_joints = publisher("/joint_states", JointState)
        self.gripper = Gripper(self.robot, self._fingers)
        self.services = Services(self.robot)
        self._faults = Faults(self.robot)
        rospy.Subscriber("/cartesian_impedance_example_controller/equilibrium_pose", PoseStamped, self._on_pose,
                         queue_size=20, tcp_nodelay=True)
        for name in ("position_joint_trajectory_controller", "effort_joint_trajectory_controller"):
            rospy.Subscriber(f"/{name}/command", JointTrajectory, self._on_trajectory, callback_args=name, queue_size=1,
                             tcp_nodelay=True)
        self._cameras = SceneCameras(self.robot.rig, self.robot.lock, image_hz)

    def _on_pose(self, message: PoseStamped) -> None:
        point, turn = message.pose.position, message.pose.orientation
        position, quaternion = (point.x, point.y, point.z), (turn.x, turn.y, turn.z, turn.w)
        if "cartesian_impedance_example_controller" not in self.robot.running:
            return
        with self.robot.lock:
            self.robot.rig.monitor.target(message.header.stamp.to_sec(), position, quaternion)
            self.robot.drive.set_target(position, quaternion)

    def _on_trajectory(self, message: JointTrajectory, name: str) -> None:
        if name not in self.robot.running:
            return
        if message.points and sorted(message.joint_names) != sorted(self.names):
            rospy.logerr("Joints on incoming trajectory don't match the controller joints.")
            return
        order = [message.joint_names.index(joint) for joint in self.names] if message.points else []
        times = np.array([point.time_from_start.to_sec() for point in message.points])
        positions = np.array([[point.positions[i] for i in order] for point in message.points])
        velocities = None
        if message.points and all(len(point.velocities) == 7 for point in message.points):
            velocities = np.array([[point.velocities[i] for i in order] for point in message.points])
        if len(times) and (times[0] <= 0.0 or (np.diff(times) <= 0.0).any()):
            rospy.logerr("Trajectory message contains waypoints that are not strictly increasing in time.")
            return
        with self.robot.lock:
            if message.header.stamp == rospy.Time() or self.robot.mode != 0:
                self.robot.take_trajectory(message.header.seq, times, positions, velocities)

    def spin(self) -> None:
        self._cameras.start()
        start_worker("the gripper's readings", self.gripper.read_loop)
        following = time.monotonic()
        while not rospy.is_shutdown():
            before = self.robot.time
            self.robot.step(STEP_S)
            if self.robot.broken:
                raise HybridVLAError("libfranka: Commanding value is infinite or NaN. The driver ends, as the real one does")
            if self._trigger.due(before, self.robot.time):
                self._publish()
            if self._merged.due(before, self.robot.time):
                self._publish_merged()
            following += STEP_S
            wait = following - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            else:
                following = time.monotonic()

    def _publish(self) -> None:
        robot, now = self.robot, rospy.Time.now()
        with robot.lock:
            joints, speeds, pose = robot.drive.joints.tolist(), robot.drive.speeds.tolist(), robot.drive.o_t_ee
            torque = robot.drive._torque.tolist()
            state = FrankaState(
                q=joints, q_d=joints, dq=speeds, dq_d=speeds, theta=joints, dtheta=speeds, tau_J=torque, tau_J_d=torque,
                O_T_EE=columns(pose), O_T_EE_d=columns(pose), O_T_EE_c=columns(pose), F_T_EE=columns(robot.drive.f_t_ee),
                F_T_NE=columns(F_T_NE), NE_T_EE=columns(robot.drive.ne_t_ee), EE_T_K=columns(np.eye(4)),
                O_F_ext_hat_K=[*robot.force.tolist(), 0.0, 0.0, 0.0],
                K_F_ext_hat_K=[*(pose[:3, :3].T @ robot.force).tolist(), 0.0, 0.0, 0.0],
                m_ee=ARM_MASS_EE, m_load=robot.drive.load[0], m_total=ARM_MASS_EE + robot.drive.load[0],
                F_x_Cload=robot.drive.load[1].tolist(), time=robot.time, robot_mode=robot.mode,
                control_command_success_rate=1.0 if robot.commanding else 0.0,
                current_errors=Errors(**dict.fromkeys(robot.current_errors, True)),
                last_motion_errors=Errors(**dict.fromkeys(robot.last_errors, True)))
        state.header.stamp = now
        if not robot.state_silent:
            self._states.publish(state)
        self._joint_state(self._joints, joints, speeds, torque, now)
        if self._desired.get_num_connections():
            self._joint_state(self._desired, joints, speeds, torque, now)
        if self._f_ext.get_num_connections():
            wrench = WrenchStamped()
            wrench.header.stamp, wrench.header.frame_id = now, self._k_frame
            wrench.wrench.force.x, wrench.wrench.force.y, wrench.wrench.force.z = state.K_F_ext_hat_K[:3]
            self._f_ext.publish(wrench)

    def _joint_state(self, publisher: rospy.Publisher, joints: List[float], speeds: List[float], torque: List[float],
                     now: rospy.Time) -> None:
        message = JointState(name=self.names, position=joints, velocity=speeds, effort=torque)
        message.header.stamp = now
        publisher.publish(message)

    def _publish_merged(self) -> None:
        if not self._all_joints.get_num_connections():
            return
        with self.robot.lock:
            joints, speeds = self.robot.drive.joints.tolist(), self.robot.drive.speeds.tolist()
        message = JointState(name=self.names + self._fingers, velocity=[*speeds, 0.0, 0.0],
                             position=[*joints, self.gripper.width / 2, self.gripper.width / 2])
        message.header.stamp = rospy.Time.now()
        self._all_joints.publish(message)


def main() -> None:
    config = load_file(RobotConfig, package_path(require_parameter("robot_config")))
    image_hz, seed = number_parameter("image_hz", 10.0), number_parameter("seed", 1)
    if not 0.1 <= image_hz <= 60.0 or seed < 0 or seed != int(seed):
        raise HybridVLAError("parameters ~image_hz (0.1 to 60) and ~seed (a whole number from 0 on) are out of range")
    task = tasks.load(rospy.get_param("~task", DEFAULT_TASK), rig="fr3")
    FrankaStandIn(config, task, str(rospy.get_param("~arm_id", "fr3")), int(seed), image_hz).spin()
