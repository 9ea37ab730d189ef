"""What holds arms short of a target, with a scripted motion: standing still, creeping, whose flag and which words."""
from types import SimpleNamespace

import numpy as np
import pytest

from hybridvla_core.geometry import rotations
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.execution.standstill import CLOSE, CREEP, REACHED_M, STILL_M, STILL_RAD, STILL_S, Standstill
from hybridvla_core.safety.status import Reason

pytestmark = pytest.mark.robot_computer
DUAL = load_robot(ROOT / "config" / "robots" / "sim_dual.yaml")
TICKS = round(STILL_S / DUAL.dt)
LIMIT = {"table": Reason.COLLISION, "inter_arm": Reason.COLLISION | Reason.OTHER_ARM, "singularity": Reason.SINGULARITY,
         "cartesian_speed": Reason.NONE}


class Told:
    """A scripted motion, with limits whose room the test sets."""

    def __init__(self):
        self.positions, self.rotations = np.array([[0.5, 0.1, 0.4], [0.4, -0.1, 0.3]]), np.stack([np.eye(3)] * 2)
        self.joints, self.limited, self.at_rest = np.zeros((2, 7)), set(), False
        self.rooms = {}

    @property
    def limits(self):
        return [SimpleNamespace(name=name, reason=reason, positional=name != "cartesian_speed", names=(f"{name}/a", f"{name}/b"))
                for name, reason in LIMIT.items()]

    def margins(self, joints):
        return [(limit, np.array(self.rooms.get(limit.name, (1.0, 1.0)))) for limit in self.limits]

    def go(self, arm, metres=0.0, radians=0.0):
        self.positions, self.rotations = self.positions.copy(), self.rotations.copy()
        self.positions[arm] += metres * np.array([0.6, 0.0, -0.8])
        self.rotations[arm] = rotations.exp(radians * np.array([0.0, 1.0, 0.0])) @ self.rotations[arm]


@pytest.fixture
def told():
    motion = Told()
    return SimpleNamespace(motion=motion, still=Standstill(DUAL, motion), plan=SimpleNamespace(outside=np.zeros(2)))


def look(told, times=1, scale=1.0):
    for _ in range(times):
        said = told.still.look(told.plan, scale)
    return said


NOTHING = (Reason.NONE, "")


@pytest.mark.parametrize("limited, flag", [
    ("table", Reason.COLLISION), ("inter_arm", Reason.COLLISION | Reason.OTHER_ARM), ("singularity", Reason.SINGULARITY),
    ("joint_step", Reason.JOINT_LIMIT), ("joint_position", Reason.JOINT_LIMIT), ("workspace", Reason.WORKSPACE)])
def test_standing_still_for_so_long_names_the_flag_of_what_shaped_the_steps(told, limited, flag):
    told.motion.limited = {limited}
    assert look(told, TICKS - 1) == NOTHING and told.still.standing is False
    flags, text = look(told)
    assert flags == flag and told.still.standing is True
    assert text == f"the arms stand still before the target at {limited}; choose another target"
    told.still.restart()
    assert told.still.standing is False and look(told, TICKS - 1) == NOTHING


def test_at_rest_with_nothing_in_the_way_no_step_was_found_and_moving_freely_nothing_is_said(told):
    assert look(told, TICKS + 5) == NOTHING, "no limit shapes it, and it does not rest"
    told.motion.at_rest = True
    assert look(told) == (Reason.SOLVER, "the arms stand still before the target at no joint step; choose another target")
    assert told.still.standing is False, "what the solver did not find may be found yet"


@pytest.mark.parametrize("arm", [0, 1])
@pytest.mark.parametrize("metres, radians, moves", [(1.05 * STILL_M / 0.8, 0.0, True), (0.95 * STILL_M / 0.8, 0.0, False),
                                                    (0.0, 1.05 * STILL_RAD, True), (0.0, 0.95 * STILL_RAD, False)])
def test_what_counts_as_moving(told, arm, metres, radians, moves):
    told.motion.limited = {"table"}
    look(told, TICKS - 1)
    told.motion.go(arm, metres, radians)
    look(told)
    assert told.still.standing is not moves
    if moves:
        look(told, TICKS - 2)
        assert told.still.standing is False
        look(told)
        assert told.still.standing is True, "from there anew"


def test_every_limit_since_it_stands_counts_and_what_has_no_room_is_named_first(told):
    told.motion.limited = {"table"}
    look(told)
    told.motion.limited = {"singularity", "cartesian_speed"}
    told.motion.rooms = {"table": (0.9 * CLOSE, -0.001), "inter_arm": (1.1 * CLOSE, 0.5 * CLOSE), "cartesian_speed": (0.0, 0.0)}
    flags, text = look(told, TICKS)
    assert flags == Reason.COLLISION | Reason.SINGULARITY
    assert text == "the arms stand still before the target at table/b, inter_arm/b, table/a; choose another target"
    told.motion.rooms = {}
    assert look(told)[1] == text, "what was found is kept while it stands"


@pytest.mark.parametrize("arm", [0, 1])
def test_a_target_outside_is_said_at_once_with_its_arm_and_amount(told, arm):
    told.plan.outside[arm] = 0.99 * REACHED_M
    assert look(told) == NOTHING
    told.plan.outside[arm] = 0.0123
    assert look(told) == (Reason.WORKSPACE, f"{DUAL.arms[arm].name}: the target lies 12.3 mm outside the workspace; ask for one "
                                            "inside")
    look(told, TICKS)
    assert told.still.standing is False
    told.motion.at_rest = True
    assert told.still.standing is True


@pytest.mark.parametrize("arm", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("share, creeps", [(0.9, True), (1.1, False)])
@pytest.mark.parametrize("turns", [False, True])
def test_below_a_tenth_of_the_speed_asked_for_it_creeps(told, arm, scale, share, creeps, turns):
    rules = DUAL.arms[arm].cartesian_limits
    told.motion.limited = {"inter_arm"}
    step = share * CREEP * scale * DUAL.dt
    for _ in range(TICKS):
        told.motion.go(arm, 0.0 if turns else step * rules.speed_m_s, step * rules.rotation_speed_rad_s if turns else 0.0)
        flags, text = look(told, 1, scale)
    assert (flags == Reason.COLLISION | Reason.OTHER_ARM) is creeps
    assert text == ("the arms hardly move before the target at inter_arm; choose another target" if creeps else "")
    assert told.still.standing is False


@pytest.mark.parametrize("slowed, creeps", [(TICKS // 2, False), (TICKS // 2 + 1, True)])
def test_only_what_shapes_most_of_the_steps_makes_it_creep_and_it_is_looked_at_anew_each_time(told, slowed, creeps):
    def window(limited_for):
        for tick in range(TICKS):
            told.motion.limited = {"table"} if tick < limited_for else set()
            told.motion.go(0, 1.05 * STILL_M / 0.8 if tick % 20 == 0 else 0.0)
            said = look(told)
        return said
    assert (window(slowed)[0] == Reason.COLLISION) is creeps
    assert window(0) == NOTHING
