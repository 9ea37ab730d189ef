"""Robot files: the shipped ones are read, faulty ones are refused by name."""
import copy
import re

import pytest
import yaml

from hybridvla_core.configuration import from_mapping, read_mapping
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import RobotConfig, load_robot
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_ros import adapters

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"


@pytest.mark.parametrize("path", sorted(ROBOTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_robot_is_read(path):
    robot = load_robot(path)
    assert robot.name == path.stem
    for arm in robot.arms:
        for lower, start, upper in zip(arm.joint_limits.lower_rad, arm.start_joints_rad, arm.joint_limits.upper_rad):
            assert lower + arm.joint_limits.margin_rad < start < upper - arm.joint_limits.margin_rad


def table(data):
    return data["arms"][0]["joint_limits"]["position_dependent"]


@pytest.mark.parametrize("change, words", [
    (lambda d: d.update(tick_rate=3), "tick_rate"),
    (lambda d: d.pop("watchdogs"), "watchdogs"),
    (lambda d: d.update(speed_scale=1.5), "speed_scale must lie between 0.01 and 1, and is 1.5"),
    (lambda d: d.update(speed_scale=0.005), "speed_scale must lie between 0.01 and 1, and is 0.005"),
    (lambda d: d.update(reenter_scale=0.0), "reenter_scale must lie above 0 and up to 0.5, and is 0"),
    (lambda d: d.update(status_hz=1e6), "status_hz, which is at most tick_hz, must lie above 0 and up to .*, and is 1000000"),
    (lambda d: d["watchdogs"].update(heartbeat_s=3.0), "watchdogs: heartbeat_s must lie above 0 and up to 2, and is 3"),
    (lambda d: d["at_target"].update(settle_s=-1.0), "at_target: settle_s must lie above 0 and up to 5, and is -1"),
    (lambda d: d["arms"][0]["leash"].update(max_force_n=0.0), "leash: max_force_n must be positive, and is 0"),
    (lambda d: d.update(door="window"), "door"),
    (lambda d: d["arms"][0]["joint_limits"].update(lower_rad=[3.0] * 7), "joint 1"),
    (lambda d: d["arms"][0]["workspace"].update(lower_m=[0.0, 0.0]), "lower_m"),
    (lambda d: d["arms"][0]["cartesian_limits"].update(speed_m_s=float("nan")), "speed_m_s"),
    (lambda d: d["arms"][0]["tool"].update(quaternion_xyzw=[0.0, 0.0, 0.0, 0.5]), "quaternion"),
    (lambda d: d["arms"][0]["collision"].update(pairs=[["base", "tail"]]), "tail"),
    (lambda d: table(d).update(gain_rad_s2=[12.0] * 6), "position_dependent: gain_rad_s2 has 6 entries and needs 7"),
    (lambda d: d["arms"][0]["joint_limits"].update(position_dependent={key: [2.0] * 6 for key in table(d)}),
     "joint_limits: position_dependent: velocity_rad_s has 6 entries and needs 7"),
    (lambda d: table(d)["gain_rad_s2"].__setitem__(2, 0.0), "gain_rad_s2 must be positive"),
    (lambda d: table(d)["offset_rad_s"].__setitem__(2, -0.1), "offset_rad_s must not be negative"),
    (lambda d: d["arms"][0]["kinematics"]["d_m"].pop(), "kinematics: d_m has 6 entries and needs 7"),
    (lambda d: d["arms"][0]["joint_limits"].update(margin_rad="wide"), "joint_limits.margin_rad is 'wide'"),
])
def test_wrong_key_or_value_is_named(change, words):
    data = dict(read_mapping(ROBOTS / "sim_fr3.yaml"))
    change(data)
    with pytest.raises(ConfigurationError, match=words):
        from_mapping(RobotConfig, data, "robot.yaml")


@pytest.mark.parametrize("robot, change, words", [
    ("sim_fr3", lambda d: d["arms"][0]["cartesian_limits"].update(speed_m_s=250.0),
     "cartesian_limits: speed_m_s must lie above 0 and up to 3, and is 250"),
    ("sim_fr3", lambda d: d["arms"][0]["cartesian_limits"].update(rotation_speed_rad_s=45.0), "rotation_speed_rad_s must lie"),
    ("sim_fr3", lambda d: d["arms"][0]["cartesian_limits"].update(acceleration_m_s2=1000.0), "acceleration_m_s2 must lie"),
    ("sim_fr3", lambda d: d["arms"][0]["leash"].update(rotation_rad=20.0), "leash: rotation_rad must lie between 0 and 3.14"),
    ("sim_fr3", lambda d: d["arms"][0]["leash"].update(stiffness_n_m=0.2), "leash: max_force_n / stiffness_n_m, a length"),
    ("sim_fr3", lambda d: d["arms"][0]["gripper"].update(speed_m_s=100.0), "gripper: speed_m_s must lie between 0 and 1"),
    ("sim_fr3", lambda d: d["arms"][0]["gripper"].update(deadline_s=3000.0), "gripper: deadline_s must lie between 0 and 60"),
    ("sim_fr3", lambda d: d.update(tcp_tolerance_m=1.0), "tcp_tolerance_m must lie above 0 and up to 0.05, and is 1.0"),
    ("sim_fr3", lambda d: d.update(tcp_tolerance_rad=0.2), "tcp_tolerance_rad must lie above 0 and up to 0.1"),
    ("sim_fr3", lambda d: d["proposals"].update(max_observation_age_s=500.0), "max_observation_age_s must lie above 0"),
    ("sim_fr3", lambda d: d["proposals"].update(max_valid_for_s=30000.0), "max_valid_for_s must lie above 0"),
    ("sim_fr3", lambda d: d["at_target"].update(position_m=0.8),
     "at_target: position_m must lie above 0 and up to 0.05, and is 0.8"),
    ("sim_fr3", lambda d: d["at_target"].update(measured_position_m=8.0), "at_target: measured_position_m must lie above 0"),
    ("sim_fr3", lambda d: d["at_target"].update(rotation_rad=3.0), "at_target: rotation_rad must lie above 0 and up to 0.5"),
    ("sim_fr3", lambda d: d["at_target"].update(measured_rotation_rad=3.4), "at_target: measured_rotation_rad must lie above 0"),
    ("sim_fr3", lambda d: d["at_target"].update(settle_s=500.0), "at_target: settle_s must lie above 0 and up to 5, and is 500"),
    ("sim_fr3", lambda d: d["arms"][0]["joint_limits"].update(acceleration_rad_s2=[10.0] * 6 + [570.0]),
     "joint_limits: acceleration_rad_s2 must lie between 0 and 100, and is 570"),
    ("sim_fr3", lambda d: d["arms"][0]["joint_limits"].update(acceleration_rad_s2=[10.0] * 6 + [0.0]),
     "joint_limits: velocities and accelerations must be positive"),
    ("fr3", lambda d: d["franka"].update(tool_center_m=[-10.0, 0.0, 30.0]), "tool_center_m must lie between -0.5 and 0.5"),
    ("fr3", lambda d: d["franka"].update(slip_m=8.0), "franka: slip_m must lie above 0 and up to 0.1, and is 8"),
    ("fr3", lambda d: d["franka"].update(grasp_epsilon_m=80.0), "grasp_epsilon_m must lie above 0 and up to 0.5"),
    ("fr3", lambda d: d["franka"].update(collision_torque_nm=[4000.0] * 7), "collision_torque_nm must lie between 0 and 200"),
    ("fr3", lambda d: d["franka"].update(collision_force_n=[7000.0] * 6), "collision_force_n must lie between 0 and 1000"),
])
def test_a_number_in_other_units_is_refused_by_name(robot, change, words):
    data = copy.deepcopy(dict(read_mapping(ROBOTS / f"{robot}.yaml")))
    change(data)
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        from_mapping(RobotConfig, data, "robot.yaml")


@pytest.mark.parametrize("word", [".nan", ".inf", "-.inf", "1.0e+400"])
@pytest.mark.parametrize("where, key", [
    (lambda arm: (arm["kinematics"], "flange_m"), "arms.kinematics.flange_m"),
    (lambda arm: (arm["kinematics"]["alpha_rad"], 3), "arms.kinematics.alpha_rad"),
    (lambda arm: (arm["joint_limits"]["velocity_rad_s"], 1), "arms.joint_limits.velocity_rad_s"),
    (lambda arm: (arm["joint_limits"]["position_dependent"]["lower_rad"], 0), "arms.joint_limits.position_dependent.lower_rad"),
    (lambda arm: (arm["workspace"]["planes"][0], "offset_m"), "arms.workspace.planes.offset_m"),
    (lambda arm: (arm["collision"], "table_z_m"), "arms.collision.table_z_m"),
    (lambda arm: (arm["collision"]["capsules"][0]["start_m"], 2), "arms.collision.capsules.start_m"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_number_that_is_not_finite_is_refused_by_name(where, key, word):
    data = copy.deepcopy(dict(read_mapping(ROBOTS / "sim_fr3.yaml")))
    data["arms"][0]["workspace"]["planes"] = [{"name": "wall", "normal": [1.0, 0.0, 0.0], "offset_m": 0.1}]
    holder, name = where(data["arms"][0])
    holder[name] = yaml.safe_load(word)
    with pytest.raises(ConfigurationError, match=f"robot.yaml: {key} is .*; use a finite number"):
        from_mapping(RobotConfig, data, "robot.yaml")


@pytest.mark.parametrize("robot, roles", [
    ("sim_fr3", ["joint_states"]), ("sim_fr3", ["command"]), ("fr3", ["robot_state"]), ("fr3", ["trajectory"]),
    ("fr3", ["gripper_grasp"]), ("agilex", ["command"]), ("agilex", ["finger_joints"]), ("agilex", ["pose_euler", "pose"]),
    ("agilex_pos_cmd", ["pose_command"]), ("agilex_pos_cmd", ["robot_state"]),
])
def test_a_topic_that_the_driver_needs_is_named_with_its_arm(robot, roles):
    data = copy.deepcopy(dict(read_mapping(ROBOTS / f"{robot}.yaml")))
    arm = data["arms"][-1]
    for role in roles:
        arm["topics"].pop(role)
    words = f"arm {arm['name']} has no topics.{' or topics.'.join(roles)}, which driver {data['driver']} needs"
    with pytest.raises(ConfigurationError, match=words):
        adapters.check_topics(from_mapping(RobotConfig, data, "robot.yaml"))


def agilex(change):
    data = copy.deepcopy(dict(read_mapping(ROBOTS / "agilex.yaml")))
    change(data, *data["arms"])
    return from_mapping(RobotConfig, data, "robot.yaml")


@pytest.mark.parametrize("change, words", [
    (lambda d, right, left: left["topics"].update(gripper_comand="/x"),
     "arm left: topics: there is no role gripper_comand; did you mean gripper_command?"),
    (lambda d, right, left: d["topics"].update(deadmann="/x"), "topics: there is no role deadmann; did you mean deadman?"),
    (lambda d, right, left: d["topics"].update(proposal="/my/proposal"),
     "topics.proposal is '/my/proposal', but every node uses /hybridvla/policy/proposal; leave the key out"),
    (lambda d, right, left: d["topics"].update(deadman=""),
     "topics.deadman is '', but every node uses /hybridvla/safety/deadman"),
    (lambda d, right, left: (d["topics"].pop("status"), left["topics"].update(pose="/hybridvla/safety/status")),
     "topics.status and arm left: topics.pose are both"),
    (lambda d, right, left: left["topics"].update(command=right["topics"]["command"]),
     "arm right: topics.command and arm left: topics.command are both /master/joint_right; give each its own"),
    (lambda d, right, left: left["topics"].update(joint_states=right["topics"]["joint_states"]),
     "arm right: topics.joint_states and arm left: topics.joint_states are both /puppet/joint_right"),
    (lambda d, right, left: left["topics"].update(robot_state=right["topics"]["robot_state"]),
     "arm right: topics.robot_state and arm left: topics.robot_state are both"),
    (lambda d, right, left: left["topics"].update(command=left["topics"]["joint_states"]),
     "arm left: topics.joint_states and arm left: topics.command are both /puppet/joint_left"),
    (lambda d, right, left: right.update(joint_names=[f"joint{i}" for i in range(1, 7)]),
     "arm right: topics.finger_joints names joint6, which is a joint of the arm"),
    (lambda d, right, left: left["topics"].update(joint_states="/puppet/joint_left "),
     "arm left: topics.joint_states is '/puppet/joint_left '"),
    (lambda d, right, left: left["topics"].update(command="master/joint_right"),
     "arm left: topics.command is 'master/joint_right', which names another topic in each namespace; write the whole name"),
    (lambda d, right, left: left["topics"].update(command="~joint_left"),
     "arm left: topics.command is '~joint_left', which names another topic in each namespace"),
    (lambda d, right, left: d["topics"].update(robot_go_to_start="go"), "topics.robot_go_to_start is 'go', which names another"),
    (lambda d, right, left: left["topics"].update(pose=d["topics"]["status"]),
     "topics.status and arm left: topics.pose are both"),
    (lambda d, right, left: right["gripper"].update(max_width_m=70.0),
     "gripper: max_width_m must lie between 0 and 0.5, and is 70"),
    (lambda d, right, left: right["joint_limits"].update(lower_rad=[-150.0] * 6),
     "lower_rad has -150, more than two turns; use radians"),
    (lambda d, right, left: right["tool"].update(position_m=[0.0, 0.0, 140.0]),
     "tool: position_m must lie between -20 and 20, and is 140"),
    (lambda d, right, left: right["kinematics"].update(a_m=[0.0, 0.0, 285.03, -21.98, 0.0, 0.0]),
     "kinematics: a_m must lie between"),
    (lambda d, right, left: right["collision"]["capsules"][0].update(radius_m=45.0),
     "capsule base: radius_m must lie between 0 and 0.5"),
])
def test_slips_of_copy_and_paste_between_arms_are_named(change, words):
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        agilex(change)


def test_arms_whose_joints_have_names_of_their_own_may_share_one_topic_of_joint_states():
    def one_topic(data, right, left):
        right["joint_names"] = [f"right_joint{i}" for i in range(6)]
        left["topics"]["joint_states"] = right["topics"]["joint_states"]

    assert len(agilex(one_topic).arms) == 2


@pytest.mark.parametrize("robot, change, words", [
    ("sim_fr3", lambda d: d["arms"][0]["topics"].update(gripper_move="/franka_gripper/move"),
     "arm arm has topics.gripper_move, on which driver franka_cartesian commands nothing; it knows command, gripper_command"),
    ("fr3", lambda d: d["arms"][0]["topics"].update(gripper_command="/gripper"),
     "topics.gripper_command, on which driver franka_ros"),
    ("agilex", lambda d: d["arms"][1]["topics"].update(trajectory="/t"), "left has topics.trajectory, on which driver agilex"),
    ("sim_fr3", lambda d: d.update(door="joint"),
     "door is joint, but driver franka_cartesian is commanded through door cartesian alone"),
])
def test_what_an_adapter_would_never_command_is_named(robot, change, words):
    data = copy.deepcopy(dict(read_mapping(ROBOTS / f"{robot}.yaml")))
    change(data)
    with pytest.raises(ConfigurationError, match=words):
        adapters.check_topics(from_mapping(RobotConfig, data, "robot.yaml"))


def test_arms_that_no_adapter_can_drive_together_are_refused():
    data = copy.deepcopy(dict(read_mapping(ROBOTS / "fr3.yaml")))
    other = copy.deepcopy(data["arms"][0])
    other.update(name="other", topics={})
    data["arms"].append(other)
    with pytest.raises(ConfigurationError, match="driver franka_ros drives one arm, and there are arm, other"):
        from_mapping(RobotConfig, data, "robot.yaml")

    def seven(_data, _right, left):
        for key in ("joint_names", "start_joints_rad", "kinematics", "joint_limits"):      # the right arm's, by an anchor
            left[key] = copy.deepcopy(left[key])
        left["joint_names"].append("joint7")
        left["start_joints_rad"].append(0.0)
        for key in ("a_m", "d_m", "alpha_rad", "theta_offset_rad"):
            left["kinematics"][key].append(0.0)
        for key, value in (("lower_rad", -1.0), ("upper_rad", 1.0), ("velocity_rad_s", 1.0), ("acceleration_rad_s2", 1.0)):
            left["joint_limits"][key].append(value)
    with pytest.raises(ConfigurationError, match="same number of joints, and have right 6, left 7"):
        agilex(seven)


@pytest.mark.parametrize("robot", ["sim_fr3", "agilex"])
def test_an_arm_has_capsules_and_may_have_none_that_are_kept_apart(robot):
    data = copy.deepcopy(dict(read_mapping(ROBOTS / f"{robot}.yaml")))
    for arm in data["arms"]:
        arm["collision"] = {**arm["collision"], "pairs": [], "above_table": []}
    SafetyFilter(from_mapping(RobotConfig, data, "robot.yaml")).tick(1.0)
    last = data["arms"][-1]
    last["collision"] = {**last["collision"], "capsules": []}
    with pytest.raises(ConfigurationError, match=f"arm {last['name']}: collision: capsules is empty"):
        from_mapping(RobotConfig, data, "robot.yaml")


@pytest.mark.parametrize("path", sorted(ROBOTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_robots_have_the_topics_that_their_drivers_need(path):
    adapters.check_topics(load_robot(path))
