"""Other launches of the FR3: the wrong arm_id, too slow a state, the joint door."""
from __future__ import annotations

import contextlib

import numpy as np
import pytest
from fr3_bench import Bench


@pytest.fixture
def launch(master):
    from conftest import Source

    @contextlib.contextmanager
    def start(*arguments):
        process = master.launch("fr3.launch", "rig:=stand_in", "policy:=false", "speed_scale:=1.0", "image_hz:=0.2", *arguments)
        rig = None
        try:
            rig = Bench(master, Source)
            yield rig
        finally:
            if rig is not None:      # heartbeats of a second policy would retire the next one's epoch
                rig.source.alive = rig.operator.pressed = False
            master.end(process, 20.0)
    return start


def refusal(rig, *words):
    rig.until(lambda: all(word in rig.activate(True).message for word in words), f"a refusal with {words}", 40)
    assert not rig.activate(True).success


def test_a_wrong_arm_id_is_named(launch):
    with launch("arm_id:=panda") as rig:
        refusal(rig, "panda_joint1", "fr3_joint1", "arm_id")


@pytest.mark.long
def test_states_at_the_drivers_default_rate_are_too_slow(launch):
    with launch("publish_rate:=30") as rig:
        refusal(rig, "states come at")


@pytest.mark.long
def test_a_dry_run_checks_and_computes_and_changes_nothing(launch):
    with launch("dry_run:=true") as rig:
        rig.answered(rig.activate, True, what="activate")
        assert "launch with armed:=true" in rig.activate(True).message
        rig.until(lambda: rig.state("HOLDING", "ACTIVE") and np.isfinite(rig.commanded).all(), "a status once active")
        before = rig.commanded
        rig.pursue([0.45, 0.10, 0.25], 1.0, lambda: np.linalg.norm(rig.commanded - before) > 0.05, "a computed motion")
        report = rig.rig()
        assert not rig.targets and report["running"] == ["franka_state_controller"]
        assert report["stiffness"] == [200.0, 10.0, 0.5] and report["upper_force"] == [20.0, 20.0, 20.0]
        rig.user_stop(True)
        rig.until(lambda: rig.state("STOPPED") and "USER_STOPPED" in rig.status.message, "STOPPED by the button", 10)
        assert "then call resume" in rig.recover().message
        rig.user_stop(False)
        rig.answered(rig.resume, what="resume without recover")
        rig.activate(False)
        for service in (rig.go_to_start, rig.recover):
            assert "dry run" in service().message


@pytest.mark.long
def test_the_joint_door_reaches_its_targets_and_the_start(launch):
    with launch("door:=joint") as rig:
        rig.until(lambda: rig.status is not None, "a status", 60)
        rig.start()
        assert "position_joint_trajectory_controller" in rig.rig()["running"]
        rig.arrive([0.45, 0.10, 0.25])
        assert np.linalg.norm(rig.measured - [0.45, 0.10, 0.25]) < 0.01
        report = rig.report("")
        assert report.targets > 100 and report.limit_violations == 0, rig.rig()["violations_by_name"]
        rig.begin()
        assert np.abs(np.array(rig.rig()["joints"]) - rig.arm.start_joints_rad).max() < 0.02
