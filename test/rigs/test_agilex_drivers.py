"""Drivers that differ from what is expected, through agilex.launch: units, modes, and arms at their power-up pose."""
from __future__ import annotations

import numpy as np
import pytest


def refusal(rig, word):
    """Assert that activate refuses with a sentence that contains `word`."""
    answers = []
    rig.until(lambda: answers.append(rig.activate(True)) or word in answers[-1].message, f"a refusal about {word}")
    assert not answers[-1].success
    return answers[-1].message


def test_a_gripper_in_motor_units_is_refused_by_name(agilex):
    with agilex("gripper:=motor") as rig:
        def said():                     # in motion, the gripper passes readings that could be metres
            return rig.activate(True).message + rig.status.message
        rig.until(lambda: rig.status is not None and "gripper.readings" in said(), "a refusal")
        assert not rig.state("ACTIVE")


def test_a_driver_in_read_mode_is_refused_by_name(agilex):
    with agilex("driver_mode:=0") as rig:
        rig.until(lambda: rig.status is not None and "mode:=1" in rig.activate(True).message + rig.status.message, "a refusal")
        assert not rig.activate(True).success and rig.state("STOPPED", "INACTIVE")


def test_an_old_pos_cmd_driver_is_spoken_to_in_its_own_units(agilex):
    with agilex("command:=pos_cmd", "units:=old", robot="agilex_pos_cmd") as rig:
        rig.begin()
        wanted = rig.shift([0.02, 0.0, -0.06])
        for arm in ("right", "left"):
            rig.until(lambda arm=arm: np.linalg.norm(rig.measured(arm) - wanted[arm][0]) < 0.006, "arrival")
        assert rig.rig()["violations_by_name"] == {}
        assert rig.state("ACTIVE") or rig.state("HOLDING")


@pytest.mark.long
def test_arms_at_their_power_up_pose_are_led_inside(agilex):
    """Piper's zero pose is at two of its joint limits."""
    with agilex("start:=zero") as rig:
        message = refusal(rig, "reenter")
        assert "joint" in message and "rad" in message
        assert rig.reenter().success
        rig.until(lambda: rig.state("INACTIVE") and "the arms are inside" in rig.status.message, "the way back inside", 60)
        assert rig.rig()["violations_by_name"].keys() <= {f"{arm}/joint_{joint}_position" for arm in ("right", "left")
                                                           for joint in (2, 3)}
        rig.activate(False)
        answer = rig.go_to_start()      # free or not, depending on where the way inside ended; if not, it is named
        assert answer.success or "not free" in answer.message, answer.message
