"""Confidence in use: the arm is slower when the two paths disagree or the tokens are unsure; switched off, nothing changes."""
import dataclasses

import numpy as np
import pytest
from safety_rig import ROBOTS, Rig

from hybridvla_core.contracts import Mode, Prediction
from hybridvla_core.robots.config import CautionConfig, load_robot

pytestmark = pytest.mark.robot_computer

RULES = CautionConfig(enabled=True, distance_m=0.03, angle_rad=0.3, confidence=0.5, scale=0.4)
NAN = float("nan")
DOUBTFUL = [dict(path_distance=0.031), dict(path_angle=0.31), dict(mean_confidence=0.49),
            dict(ar_complete=False, path_distance=NAN, path_angle=NAN, mean_confidence=0.9)]
SURE = [dict(), dict(path_distance=0.029, path_angle=0.29, mean_confidence=0.51),
        dict(mode=Mode.DIFFUSION, path_distance=NAN, path_angle=NAN, mean_confidence=NAN),     # one path has no opinion
        dict(mode=Mode.AUTOREGRESSIVE, path_distance=NAN, path_angle=NAN)]


def prediction(**changes):
    values = dict(action=np.zeros((1, 7)), mode=Mode.ENSEMBLE, fused=True, mean_confidence=0.9, path_distance=0.01,
                  path_angle=0.1)
    return Prediction(**{**values, **changes})


def way(caution, made):
    """Return the positions (n, 3) commanded in the second after a proposal with that prediction, and the status's scale."""
    rig = Rig(change=lambda config: dataclasses.replace(config, caution=caution, ramp_s=0.0)).start()
    rig.propose([0.5, 0.3, 0.3], prediction=made)
    rig.tick(200)
    return rig.commanded(), rig.output.status.applied_scale


def fastest(positions):
    return np.linalg.norm(np.diff(positions, axis=0), axis=1).max() * 200.0


@pytest.mark.long
@pytest.mark.parametrize("changes", DOUBTFUL, ids=str)
def test_doubt_slows(changes):
    plain, _ = way(RULES, prediction())
    slowed, scale = way(RULES, prediction(**changes))
    assert fastest(plain) > 0.3 and fastest(slowed) < 1.05 * RULES.scale * 0.35
    assert 0.0 < scale <= RULES.scale


@pytest.mark.long
@pytest.mark.parametrize("changes", SURE, ids=str)
def test_without_doubt_it_is_as_fast_as_without_a_prediction(changes):
    np.testing.assert_array_equal(way(RULES, prediction(**changes))[0], way(RULES, None)[0])


def test_the_next_proposal_without_doubt_is_carried_out_at_full_speed():
    rig = Rig(change=lambda config: dataclasses.replace(config, caution=RULES, ramp_s=0.0)).start()
    rig.propose([0.5, 0.3, 0.3], prediction=prediction(path_distance=0.1))
    rig.tick(100)
    assert rig.output.status.applied_scale <= RULES.scale
    rig.propose([0.5, 0.3, 0.3], prediction=prediction())
    rig.tick(100)
    assert rig.output.status.applied_scale > RULES.scale and fastest(rig.commanded()[-60:]) > 0.3


@pytest.mark.parametrize("path", sorted(ROBOTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_it_is_off_in_every_shipped_robot(path):
    assert not load_robot(path).caution.enabled


@pytest.mark.long
@pytest.mark.parametrize("changes", DOUBTFUL, ids=str)
def test_off_changes_nothing(changes):
    off = load_robot(ROBOTS / "sim_fr3.yaml").caution
    np.testing.assert_array_equal(way(off, prediction(**changes))[0], way(off, None)[0])
