"""`hybridvla doctor --robot`: the driver's controller, stiffness and mode, and the gripper's first move, with planted faults."""
from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hybridvla_cli.doctor_parts.findings import OK, Finding
from hybridvla_cli.doctor_parts.graph import Facts, Stream, judge
from hybridvla_cli.doctor_parts.gripper import Move, ask_first, refusal, sense_findings, target
from hybridvla_core.configuration import load_file
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import load_robot

CONFIG = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
FR3, AGILEX = (load_robot(ROOT / f"config/robots/{name}.yaml") for name in ("fr3", "agilex"))
DUAL = load_robot(ROOT / "config/robots/sim_dual.yaml")
IMPEDANCE = FR3.franka.impedance_controller
FR3_RUNS = Facts(
    publishers={FR3.arms[0].topics["joint_states"]: ("/driver",)}, dry_run=False, status="holds",
    streams={topic: Stream(300, 3.0, 0.003, FR3.arms[0].joint_names + ("fr3_finger_joint1", "fr3_finger_joint2"))
             for topic in (FR3.arms[0].topics["joint_states"], "/franka_gripper/joint_states")},
    controllers={IMPEDANCE: "running", "franka_state_controller": "running"},
    stiffness={"translational_stiffness": 400.0, "rotational_stiffness": 30.0, "nullspace_stiffness": 5.0})
AGILEX_RUNS = Facts(
    publishers={arm.topics["joint_states"]: (f"/{arm.name}",) for arm in AGILEX.arms}, arms={arm.topics["robot_state"]: ""
                                                                                            for arm in AGILEX.arms},
    streams={arm.topics["joint_states"]: Stream(600, 3.0, 0.003, AGILEX.arms[0].joint_names) for arm in AGILEX.arms})
RIGHT = AGILEX.arms[0]
DRIVER_FAULTS = {
    "controller stopped": (replace(FR3_RUNS, controllers={**FR3_RUNS.controllers, IMPEDANCE: "stopped"}), FR3,
                           f"{IMPEDANCE} is stopped: the arm does not follow", "hybridvla watch names the step"),
    "foreign controller": (replace(FR3_RUNS, controllers={**FR3_RUNS.controllers, "moveit_controller": "running"}), FR3,
                           "moveit_controller is running and not ours", "stop_controllers: [moveit_controller]"),
    "no state controller": (replace(FR3_RUNS, controllers={IMPEDANCE: "running"}), FR3,
                            "franka_state_controller is not running", "start_controllers: [franka_state_controller]"),
    "no controller manager": (replace(FR3_RUNS, controllers=None), FR3, "list_controllers does not answer",
                              "start franka_control"),
    "wrong stiffness": (replace(FR3_RUNS, stiffness={**FR3_RUNS.stiffness, "translational_stiffness": 200.0}), FR3,
                        "translational_stiffness is 200 N/m, and franka.translational_stiffness_n_m is 400",
                        "dynparam set /cartesian_impedance_example_controller/dynamic_reconfigure_compliance_param_node "
                        "translational_stiffness 400"),
    "arm not enabled": (replace(AGILEX_RUNS, arms={**AGILEX_RUNS.arms, RIGHT.topics["robot_state"]: "a brake is not released"}),
                        AGILEX, "arm right takes no commands: a brake is not released",
                        "rosservice call /hybridvla/robot/enable"),
    "driver in read mode": (replace(AGILEX_RUNS, publishers={**AGILEX_RUNS.publishers, RIGHT.topics["command"]: ("/right",)}),
                            AGILEX, "mode 0", "mode:=1"),
}


@pytest.mark.parametrize("robot, name, policy", [
    ("fr3", "fr3", "fr3"), ("fr3", "our_left_fr3", "fr3"), ("agilex", "agilex", "agilex"),
    ("agilex_pos_cmd", "agilex_pos_cmd", "agilex"), ("sim_fr3", "sim_fr3", "tiny")])
def test_a_robot_is_judged_by_its_launch_files_policy_whatever_its_name(monkeypatch, tmp_path, robot, name, policy):
    from hybridvla_cli.doctor_parts import robot as part

    seen = []
    monkeypatch.setattr(part, "look", lambda _, config: seen.append(config) or Finding("graph", OK, "", ""))
    file = tmp_path / "robot.yaml"
    file.write_text((ROOT / f"config/robots/{robot}.yaml").read_text().replace(f"name: {robot}\n", f"name: {name}\n"))
    assert [finding.name for finding in part.findings_of(file, None, None, ())] == ["graph"]
    assert seen == [load_file(PolicyConfig, ROOT / f"config/policies/{policy}.yaml")]


def judged(facts, robot):
    """Return the findings, with the camera that the policy configuration needs."""
    topic = CONFIG.cameras[0].image_topic
    image = Stream(30, 3.0, 0.02, width=256, height=256, bytes=200_000)
    return judge(replace(facts, publishers={**facts.publishers, topic: ("/cameras",)}, streams={**facts.streams, topic: image}),
                 robot, CONFIG)


@pytest.mark.parametrize("fault", sorted(DRIVER_FAULTS))
def test_a_fault_of_the_robots_driver_is_named_with_its_cure_and_alone(fault):
    facts, robot, said, cure = DRIVER_FAULTS[fault]
    bad = [finding for finding in judged(facts, robot) if finding.status != OK]
    assert len(bad) == 1 and said in bad[0].found and cure in bad[0].advice, bad


def on_one_topic(robot, topic="/joint_states", **sent):
    """Return the facts of a robot whose joint states all come over one topic, and the robot. sent: the joints by node."""
    arms = tuple(replace(arm, topics={**arm.topics, "joint_states": topic, "gripper_joint_states": topic,
                                      "finger_joints": f"{arm.name}_finger"}) for arm in robot.arms)
    pairs = tuple((f"/{node}", tuple(names)) for node, names in sent.items())
    stream = Stream(900, 3.0, 0.003, tuple(name for _, names in pairs for name in names), sent=pairs)
    return Facts(publishers={topic: tuple(f"/{node}" for node in sent)}, streams={topic: stream}), replace(robot, arms=arms)


def test_arms_and_grippers_that_share_a_topic_are_well_and_two_publishers_of_one_of_them_are_not():
    first, second = (arm.joint_names for arm in DUAL.arms)
    fingers, others = ((f"{arm.name}_finger",) for arm in DUAL.arms)
    for sent in ({"right": first, "left": second}, {"right": first, "hand": fingers, "left": (*second, *others)},
                 {"right": first, "left": second, "lift": ("lift_joint",)}):
        found = judged(*on_one_topic(DUAL, **sent))
        assert all(finding.status == OK for finding in found), found
    for twice, what in ((fingers, "gripper's joints"), (first[:1], "joints")):
        bad = [finding for finding in judged(*on_one_topic(
            DUAL, right=first, hand=fingers, left=second, other=twice)) if finding.status != OK]
        assert len(bad) == 1 and f"all publish the {what} of arm {DUAL.arms[0].name} on /joint_states" in bad[0].found, bad
        assert bad[0].advice == "end one of them: rosnode kill /other"
    missing, = (finding for finding in judged(*on_one_topic(DUAL, right=first, hand=fingers)) if finding.status != OK)
    assert second[0] in missing.found


def test_what_was_sent_comes_through_json_as_it_was(monkeypatch):
    from hybridvla_cli.doctor_parts import robot as part

    facts, robot = on_one_topic(DUAL, right=DUAL.arms[0].joint_names, left=DUAL.arms[1].joint_names)
    monkeypatch.setattr(part, "_beside_the_nodes", lambda *_: json.loads(json.dumps(asdict(facts))))
    assert part.look(robot, CONFIG) == facts


def test_a_drivers_good_state_is_said_and_a_dry_run_may_have_no_controller():
    for facts, robot, said in ((FR3_RUNS, FR3, "400 N/m, 30 N m/rad, 5 N m/rad, as configured"),
                               (replace(FR3_RUNS, dry_run=True, stiffness={},
                                        controllers={"franka_state_controller": "running"}), FR3, "because this is a dry run"),
                               (AGILEX_RUNS, AGILEX, "arm left reports no fault")):
        found = judged(facts, robot)
        assert all(finding.status == OK for finding in found) and said in " ".join(finding.found for finding in found), found


FILE = Path("config/robots/fr3.yaml")
SENSE = {      # opening before, asked, afterwards; whether a person saw it move that way; what is said; the cure
    "as configured": (0.2, 0.35, 0.36, True, "reported at 0.36 and seen", ""),
    "gripper sense swapped": (0.2, 0.35, 0.65, None, "its sense is the other way round",
                              "exchange closed and open in config/robots/fr3.yaml, arm arm: gripper.readings: [0.08, 0]"),
    "stuck": (0.2, 0.35, 0.2, True, "it did not move", "home the gripper"),
    "something between": (0.8, 0.65, 0.75, True, "stopped on its way", "between the fingers"),
    "not read": (float("nan"), 0.5, 0.5, None, "its opening is not read", "finger_joints"),
    "the driver's own sense": (0.2, 0.35, 0.35, False, "seen to go the other way", "gripper's own driver"),
    "nobody looked": (0.2, 0.35, 0.35, None, "nobody looked", "without --yes"),
}


@pytest.mark.parametrize("case", sorted(SENSE))
def test_the_first_move_tells_the_grippers_sense_and_the_key_to_change(case):
    before, asked, after, seen, said, cure = SENSE[case]
    finding, = sense_findings([Move("arm", before, asked, after)], FR3, FILE, {"arm": seen})
    assert said in finding.found and cure in finding.advice and (finding.status == OK) == (case == "as configured"), finding


def test_a_gripper_streamed_with_the_joints_is_judged_by_the_eye():
    finding, = sense_findings([Move("right", 0.2, 0.35, 0.35)], AGILEX, Path("agilex.yaml"), {"right": False})
    assert "gripper.readings: [0.07, 0]" in finding.advice


def test_what_is_asked_is_small_and_tells_open_from_closed_anywhere():
    for percent in range(101):
        wanted = target(percent / 100.0)
        assert 0.0 <= wanted <= 1.0 and 0.149 < abs(wanted - percent / 100.0) < 0.151 and abs(wanted - 0.5) > 0.149, percent


def test_nothing_is_moved_beside_a_policy_another_commander_or_in_a_dry_run():
    goal = FR3.arms[0].topics["gripper_move"] + "/goal"
    beat, command = "/hybridvla/policy/heartbeat", FR3.arms[0].topics["command"]
    for robot, publishers, state, dry, said in (
            (FR3, {}, "ACTIVE", False, "the filter is ACTIVE"), (FR3, {}, "HOLDING", False, "the filter is HOLDING"),
            (FR3, {}, "INACTIVE", True, "dry run"), (FR3, {goal: ["/teleop"]}, "INACTIVE", False, "/teleop commands arm arm"),
            (FR3, {command: ["/marker"]}, "", False, "/marker commands"), (AGILEX, {}, "", False, "no safety"),
            (AGILEX, {beat: ["/policy_node"]}, "INACTIVE", False, "/policy_node is the filter's policy")):
        refused, cure = refusal(publishers, state, dry, robot)
        assert said in refused and cure, (said, refused)
    assert refusal({goal: ["/safety_filter_node"], beat: ["/policy_node"]}, "INACTIVE", False, FR3) == ("", "")


def test_only_a_typed_yes_moves_the_gripper():
    asked = []
    for answer, moves in (("yes", True), (" YES", True), ("", False), ("y", False), ("no", False)):
        assert ask_first([Move("arm", 0.2, 0.35)], FR3, lambda text, answer=answer: asked.append(text) or answer) == moves
    assert "arm arm opens by 12 mm" in asked[0] and "dead-man" not in asked[0]


def test_a_robot_is_named_before_its_gripper_moves(capsys):
    from hybridvla_cli.__main__ import main

    assert main(["doctor", "--move-gripper"]) != 0
    assert "name it with --robot" in capsys.readouterr().err
