"""`hybridvla doctor` with the rigs' stand-ins: the driver's state is read, and a first move shows the gripper's sense."""
from __future__ import annotations

import pytest
from fr3_bench import Bench

from hybridvla_cli.doctor_parts.robot import findings_of, move_gripper
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot

IMPEDANCE = "cartesian_impedance_example_controller"


def swapped(folder, name, width):
    """Write a robot's file with closed and open exchanged."""
    text = (ROOT / f"config/robots/{name}.yaml").read_text()
    file = folder / f"{name}.yaml"
    file.write_text(text.replace(f"max_width_m: {width}", f"max_width_m: {width}\n      readings: [{width}, 0.0]"))
    return file


@pytest.mark.long
def test_an_fr3s_stiffness_controller_and_gripper_are_named(master, tmp_path):
    from conftest import Source
    from hybridvla_ros.adapters.franka.driver import FrankaDriver

    file = ROOT / "config/robots/fr3.yaml"
    process = master.launch("fr3.launch", "rig:=stand_in", "policy:=false", "speed_scale:=1.0", "image_hz:=0.2")
    try:
        bench = Bench(master, Source)
        bench.begin()
        bench.until(lambda: bench.activate(True).success and bench.activate(False).success, "the start-up", 60)
        bench.until(lambda: bench.state("INACTIVE"), "INACTIVE")
        FrankaDriver(load_robot(file).franka).set_stiffness(200.0, 30.0, 5.0)
        found = {finding.name: finding for finding in findings_of(file, None, None, ())}
        assert f"{IMPEDANCE} is running" in found["controller"].found
        assert "translational_stiffness is 200 N/m" in found["stiffness"].found and "400" in found["stiffness"].advice
        before = bench.rig()["world"]["opening"]
        finding, = move_gripper(swapped(tmp_path, "fr3", 0.08), True)
        assert "its sense is the other way round" in finding.found and "gripper.readings: [0, 0.08]" in finding.advice
        assert abs(bench.rig()["world"]["opening"] - before) > 0.1
        bench.source.leave()
        bench.operator.pressed = False
    finally:
        master.end(process, 20.0)


@pytest.mark.long
def test_agilex_grippers_move_through_the_filter_and_the_arms_stay(agilex):
    with agilex() as rig:
        file = ROOT / "config/robots/agilex.yaml"
        finding, = move_gripper(file, True)
        assert "is the filter's policy" in finding.found and "policy:=false" in finding.advice
        rig.source.leave()
        rig.until(lambda: rig.status is not None and rig.state("INACTIVE"), "INACTIVE", 60)
        joints, answers = rig.rig()["joints"], []
        moves = list(move_gripper(file, False, lambda text: answers.append(text) or ("no" if "right OPEN" in text else "yes")))
        assert answers and "dead-man" in answers[0], moves
        assert [move.status for move in moves] == ["failure", "ok"]
        assert "gripper.readings: [0.07, 0]" in moves[0].advice and "arm right" in moves[0].found
        assert all(abs(a - b) < 0.5 for arm in joints for a, b in zip(joints[arm], rig.rig()["joints"][arm]))    # degrees
        rig.until(lambda: rig.state("INACTIVE"), "INACTIVE")
