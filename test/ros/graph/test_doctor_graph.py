"""`hybridvla doctor --robot` beside a running rig: no fault where there is none, and planted ones by name."""
from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hybridvla_core.paths import ROOT


def findings(tmp_path, robot):
    out = tmp_path / "doctor.json"
    subprocess.run([sys.executable, "-m", "hybridvla_cli", "doctor", "--robot", str(robot), "--json", str(out)],
                   cwd=str(ROOT / "src"), stdout=subprocess.DEVNULL, check=False, timeout=300)
    checks = json.loads(out.read_text())["checks"]
    first = [check["name"] for check in checks].index("checkpoint")
    return {check["name"]: check for check in checks[first + 1:]}


@pytest.mark.long
def test_a_running_rig_is_healthy_and_a_wrong_arm_id_and_left_over_time_are_named(rig, tmp_path):
    import rospy

    found = findings(tmp_path, ROOT / "config/robots/sim_fr3.yaml")
    assert found["filter"]["found"].startswith("inactive") and not [
        check for check in found.values() if check["status"] == "failure"], found
    other = tmp_path / "other.yaml"
    other.write_text((ROOT / "config/robots/sim_fr3.yaml").read_text().replace("fr3_joint", "panda_joint"))
    rospy.set_param("/use_sim_time", True)
    try:
        found = findings(tmp_path, other)
    finally:
        rospy.set_param("/use_sim_time", False)
    assert "launch with the arm_id" in found["joints"]["advice"]
    assert "rosparam set /use_sim_time false" in found["sim time"]["advice"]


@pytest.mark.long
def test_a_gripper_configured_the_wrong_way_round_shows_at_its_first_move(rig, tmp_path):
    from hybridvla_cli.doctor_parts.robot import move_gripper

    file = tmp_path / "swapped.yaml"
    text = (ROOT / "config/robots/sim_fr3.yaml").read_text()
    file.write_text(text.replace("max_width_m: 0.08", "max_width_m: 0.08\n      readings: [0.08, 0.0]"))
    finding, = move_gripper(file, True)
    assert "its sense is the other way round" in finding.found and "gripper.readings: [0, 0.08]" in finding.advice
    rig.begin()
    finding, = move_gripper(file, True)
    assert "not moved: the filter is" in finding.found and "activate" in finding.advice
