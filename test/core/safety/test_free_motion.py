"""Free motion: nearly as fast as the time-optimal motion on the same path, and exact at its end."""
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("toppra") is None:
    pytest.skip("the yardstick is installed with the tests of the model, not on the rig", allow_module_level=True)
from free_motion import ERROR_M, ERROR_RAD, SHORTEST_M, Course
from time_optimal import seconds


@pytest.mark.long
@pytest.mark.parametrize("robot, moves", [("sim_fr3", 10), ("sim_dual", 4), ("agilex", 3), ("fr3", 3)])
def test_moves_take_at_most_a_quarter_longer_than_the_optimum(robot, moves):
    course = Course(robot, seed=3)
    for _ in range(moves):
        move = course.move()
        assert move.metres >= SHORTEST_M
        assert move.error_m < ERROR_M and move.error_rad < ERROR_RAD
        assert move.seconds <= 1.25 * move.optimal + 0.05
        assert move.optimal < move.seconds + 0.08      # a true optimum, except that the last millimetre is not awaited


def test_the_yardstick_on_a_line_of_known_optimum():
    """On a straight line of 0.2 m only the tool's speed and acceleration bind: the profile is a trapezium."""
    arm = Course("sim_fr3", seed=1).rig.config.arms[0]
    way = np.linspace(0.0, 0.2, 50)
    positions = np.stack((way, 0 * way, 0 * way), axis=1)[:, None]
    joints = np.zeros((50, 1, arm.dof))
    matrices = np.tile(np.eye(3), (50, 1, 1, 1))
    v, a = arm.cartesian_limits.speed_m_s, arm.cartesian_limits.acceleration_m_s2
    assert seconds([arm], joints, positions, matrices) == pytest.approx(0.2 / v + v / a, rel=0.01)
