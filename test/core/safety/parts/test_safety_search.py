"""The search for a way back inside, among scripted obstacles: what it checks, how often, and where it ends."""
import numpy as np
import pytest

from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.execution import way_out
from hybridvla_core.safety.execution.way_out import LENGTHS_RAD, SPACING_RAD, WayOut
from hybridvla_core.safety.motion.motion import Motion

pytestmark = pytest.mark.robot_computer
FR3, DUAL = (load_robot(ROOT / "config" / "robots" / f"{name}.yaml") for name in ("sim_fr3", "sim_dual"))


def ended(looking, most=100000):
    """Return the result of a search, and after how many parts it ended."""
    for parts in range(most):
        try:
            next(looking)
        except StopIteration as end:
            return end.value, parts
    raise AssertionError("it does not end")


class Told(WayOut):
    """A search in which two functions of joints (A, dof) say whether pieces are free and limits broken; it notes every check."""

    def __init__(self, config, free=lambda begin, end: True, broken=lambda joints: 1.0):
        super().__init__(config, Motion(config))
        self.looked, self._is_free, self._how_broken = [], free, broken

    def _free(self, begin, end):
        self.looked.append((begin, end))
        return bool(self._is_free(begin, end))

    def _broken(self, joints):
        return self._how_broken(joints)


def start(config):
    return np.array([arm.start_joints_rad for arm in config.arms])


def grown(out, here, arm=0, seed=3):
    return ended(out._tree(here, arm, np.random.default_rng(seed)))


def assert_goes(legs, here, arm):
    """Assert that each leg moves only that arm."""
    for leg in legs:
        others = [index for index in range(len(here)) if index != arm]
        np.testing.assert_array_equal(leg[others], here[others])


@pytest.mark.parametrize("config, arm", [(FR3, 0), (DUAL, 0), (DUAL, 1)])
def test_with_everything_free_the_trees_meet_and_the_way_ends_at_the_start_of_that_arm(config, arm):
    here = start(config) + 0.4
    legs, parts = grown(Told(config), here, arm)
    assert_goes(legs, here, arm)
    np.testing.assert_array_equal(legs[-1][arm], start(config)[arm])
    assert len(legs) == 1 and parts < 50, "straight, since everything is free"


@pytest.mark.parametrize("arm", [0, 1])
def test_round_an_obstacle_every_piece_of_the_way_is_free_and_none_is_longer_than_allowed(arm):
    here = start(DUAL).copy()
    here[arm, 0] -= 1.0

    def free(begin, end):
        """A post between here and the start lets the first joint pass only while the third is turned."""
        for share in np.linspace(0.0, 1.0, 30):
            joints = begin[arm] + share * (end[arm] - begin[arm])
            if abs(joints[0] - start(DUAL)[arm, 0] + 0.5) < 0.1 and abs(joints[2] - start(DUAL)[arm, 2]) < 0.3:
                return False
        return True
    out = Told(DUAL, free)
    legs, _ = grown(out, here, arm)
    assert legs is not None and len(legs) > 1
    assert_goes(legs, here, arm)
    np.testing.assert_array_equal(legs[-1][arm], start(DUAL)[arm])
    for begin, end in zip([here, *legs], legs):
        assert free(begin, end)
    assert not free(here, legs[-1])
    again, _ = grown(Told(DUAL, free), here, arm)
    np.testing.assert_array_equal(legs, again, "the same seed gives the same way")
    others, _ = grown(Told(DUAL, free), here, arm, seed=4)
    assert len(others) != len(legs) or not np.array_equal(others, legs)


def test_a_place_where_nothing_is_broken_ends_the_search_there():
    here = start(FR3) + 0.4
    out = Told(FR3, lambda begin, end: np.abs(end - here).max() < 0.45 and np.abs(end - start(FR3)).max() > 0.2,
               lambda joints: 0.0 if np.abs(joints - here).max() > 0.05 else 1.0)
    legs, parts = grown(out, here)
    assert len(legs) == 1 and out._how_broken(legs[-1]) == 0.0 and parts < 100


def test_where_nothing_leads_inside_the_way_goes_to_where_least_is_broken_and_nowhere_if_it_is_no_better(monkeypatch):
    monkeypatch.setattr(way_out, "PIECES", 300)
    here = start(FR3) + 0.4

    def apart(begin, end):
        """Our tree stays near here and theirs near the start, so they never meet."""
        return any(max(np.abs(begin - place).max(), np.abs(end - place).max()) < 0.15 for place in (here, start(FR3)))

    def broken(joints):
        return 1.0 + float(np.abs(joints - here - 0.1).sum())
    out = Told(FR3, apart, broken)
    legs, parts = grown(out, here)
    assert parts >= 300 and broken(legs[-1]) < broken(here) - way_out.BETTER
    reached = [broken(end) for begin, end in out.looked if apart(begin, end) and np.abs(end - here).max() < 0.15]
    assert broken(legs[-1]) == pytest.approx(min(reached)), "the best of all that was reached"
    assert grown(Told(FR3, apart, lambda joints: 1.0), here)[0] is None
    worth = Told(FR3, apart, lambda joints: 1.0 - 0.9 * way_out.BETTER * float(np.abs(joints - here).max() > 0.0))
    assert grown(worth, here)[0] is None, "too little to be worth a way"
    nothing, parts = grown(Told(FR3, lambda begin, end: False), here)
    assert nothing is None and parts == 300, "so many pieces, and each asked for once"


def test_pieces_lie_within_the_joints_limits_and_no_tree_jumps(monkeypatch):
    monkeypatch.setattr(way_out, "PIECES", 200)
    here = start(FR3) + 0.4
    out = Told(FR3, lambda begin, end: any(max(np.abs(begin - place).max(), np.abs(end - place).max()) < 0.15
                                           for place in (here, start(FR3))))
    grown(out, here)
    lengths = np.array([np.abs(end - begin).max() for begin, end in out.looked])
    assert lengths.max() <= LENGTHS_RAD[0] + 1e-9 and (lengths > LENGTHS_RAD[0] - 1e-9).sum() > 10
    from_here = [begin for begin, _ in out.looked if np.array_equal(begin, here)]
    from_there = [begin for begin, _ in out.looked if np.array_equal(begin[0], start(FR3)[0])]
    assert len(from_here) > 5 and len(from_there) > 5, "both trees grow"
    small = (lengths < 0.03).mean()
    assert 0.02 < small < 0.6, "some pieces are tiny: at a corner few directions are free"
    turned = np.array([(np.abs(end - begin) > 1e-12).sum() for begin, end in out.looked])
    assert (turned == 1).sum() > 3, "and some turn one joint alone"


def test_arms_go_one_after_the_other_the_one_first_that_finds_its_way():
    here = start(DUAL) + 0.4
    turns = []

    def tree(place, arm, rng):
        yield
        turns.append(arm)
        if arm == 0 and len(turns) == 1:
            return None                             # the other arm is in its way
        done = place.copy()
        done[arm] = start(DUAL)[arm]
        return [done]
    out = Told(DUAL)
    out._tree = tree
    legs, _ = ended(out._search(here, None))
    assert turns == [0, 1, 0] and len(legs) == 2
    np.testing.assert_array_equal(legs[0], [here[0], start(DUAL)[1]])
    np.testing.assert_array_equal(legs[1], start(DUAL))

    def none(place, arm, rng):
        yield
        return None
    out._tree = none
    assert ended(out._search(here, None))[0] is None

    def second(place, arm, rng):
        yield
        return [place + 0.01] if arm == 1 else None
    out._tree = second
    legs, _ = ended(out._search(here, None))
    assert len(legs) == 1, "as far as it leads"


def test_simple_ways_are_looked_at_first_and_in_their_whole_length():
    here = start(DUAL) + 0.4
    out = Told(DUAL)
    legs, parts = ended(out.find(here))
    np.testing.assert_array_equal(legs, [start(DUAL)])
    assert parts == 0
    blocked = Told(DUAL, lambda begin, end: not np.array_equal(end, start(DUAL)) or not np.array_equal(begin, here))
    legs, parts = ended(blocked.find(here))
    assert len(legs) == 2 and parts == 1 and legs[0][0, 0] == here[0, 0]
    np.testing.assert_array_equal(legs[1], start(DUAL))


def test_between_two_looks_no_joint_goes_further_than_the_spacing(monkeypatch):
    seen = []
    original = way_out.Trajectory

    def noted(joints, *rest):
        seen.append(joints)
        return original(joints, *rest)
    monkeypatch.setattr(way_out, "Trajectory", noted)
    out, here = WayOut(DUAL, Motion(DUAL)), start(DUAL)
    for far, least in ((0.0, 2), (0.9 * SPACING_RAD, 2), (1.1 * SPACING_RAD, 3), (1.0, 26)):
        there = here.copy()
        there[1, 3] += far
        seen.clear()
        list(out._margins(here, there))
        path, = seen
        np.testing.assert_array_equal(path[:, :2], np.stack([here, here], axis=1))
        np.testing.assert_array_equal(path[:, 2], here)
        np.testing.assert_allclose(path[:, -1], there)
        steps = np.abs(np.diff(path[:, 2:], axis=1))
        assert steps.max(initial=0.0) <= SPACING_RAD + 1e-12 and path.shape[1] - 2 == least + len(way_out.FIRST)
        assert (np.diff(path[1, 2:, 3]) >= 0.0).all() and steps[:, 0].max() <= 0.01 * SPACING_RAD + 1e-12


def test_some_pieces_lead_from_a_place_that_was_found_to_one_near_by_by_each_joint_on_its_own(monkeypatch):
    """They begin at the chosen place, also when it is the best one, and not at whichever place is nearest."""
    monkeypatch.setattr(way_out, "PIECES", 200)
    out, ways = Told(FR3), []

    def noted(tree, here, arm, wanted, node=None):
        if node is not None and np.abs(wanted - tree.places[node]).max() <= max(way_out.NEAR_RAD):
            ways.append(wanted - tree.places[node])
    out._grow = noted                                   # nothing is free, so the search goes on
    grown(out, start(FR3) + 1.5)
    sizes = [np.unique(np.abs(way[way != 0.0]).round(9)).size for way in ways]
    assert len(ways) > 0.5 * way_out.AROUND * 200 and max(sizes) == 7, "as many different ways as joints"
    assert sum(size == np.count_nonzero(way) for size, way in zip(sizes, ways)) > 0.9 * len(ways)
    assert all(np.abs(way).max() <= max(way_out.NEAR_RAD) for way in ways) and min(np.abs(way).max() for way in ways) < 0.05


def test_a_search_goes_on_while_it_gets_better_and_ends_where_it_does_not(monkeypatch):
    monkeypatch.setattr(way_out, "PIECES", 100)
    monkeypatch.setattr(way_out, "MOST_PIECES", 700)
    here = start(FR3) + 0.4

    def near(begin, end):
        return max(np.abs(begin - here).max(), np.abs(end - here).max()) < 0.35

    def long(broken):
        return grown(Told(FR3, near, broken), here)[1]
    never = long(lambda joints: 1.0)
    assert 100 <= never < 200
    once = long(lambda joints: 1.0 - 0.5 * float(np.abs(joints - here).max() > 0.1))
    assert never < once < 400
    steps = iter(range(1, 100000))
    assert 700 <= long(lambda joints: 1e3 - 2 * way_out.BETTER * next(steps)) < 1400, "better all the time: up to the end"
    trifles = iter(range(1, 100000))
    assert long(lambda joints: 1.0 - 0.5 * float(np.abs(joints - here).max() > 0.1) - 1e-6 * next(trifles)) < 400, "by trifles"


def test_a_way_that_begins_by_breaking_a_little_more_is_not_free():
    """The motion checks every tick and would refuse it; between two checks of the search it would go unseen."""
    here = start(FR3)
    there = here.copy()
    there[0, 0] += 1.0

    class Wall:
        name, of_place = "wall", True

        def __init__(self, bump):
            self.bump = bump

        def margins(self, trajectory):
            gone = trajectory.joints[0, trajectory.SENT:, 0] - here[0, 0]
            return np.array([(-0.1 + 0.1 * gone - self.bump * ((gone > 0) & (gone < 0.01))).min()])
    for bump, free in ((0.0, True), (0.003, False)):
        out = WayOut(FR3, Motion(FR3))
        out._limits, out._allowed = [Wall(bump)], {"wall": np.array([-0.1 - way_out.WORSE])}
        assert out._free(here, there) == free


def test_inside_is_worth_a_way_however_little_was_broken():
    here = start(FR3) + 0.4
    little = 0.01 * way_out.BETTER
    out = Told(FR3, lambda begin, end: np.abs(end - here).max() < 0.45 and np.abs(end - start(FR3)).max() > 0.2,
               lambda joints: 0.0 if np.abs(joints - here).max() > 0.05 else little)
    legs, _ = grown(out, here)
    assert legs and out._how_broken(legs[-1]) == 0.0
