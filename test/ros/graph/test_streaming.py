"""Dense actions in the live graph: predicted while the previous ones are executed, just before a chunk ends, or after it."""
from __future__ import annotations

import numpy as np
import pytest
import yaml

from hybridvla_core.paths import ROOT

PERIOD, CHUNK = 0.1, 4
TINY = ROOT / "config" / "policies" / "tiny.yaml"


@pytest.fixture
def streaming(bench, tmp_path):
    """Return the bench with a policy of dense actions that add to the last command, in the requested execution mode."""
    def start(execution):
        config = yaml.safe_load(TINY.read_text())
        config["execution"] = execution
        config["convention"].update(action_period_s=PERIOD, delta_base="commanded")
        path = tmp_path / "policy.yaml"
        path.write_text(yaml.safe_dump(config))
        bench.kill_policy()
        bench.start_policy(path)
        bench.rest()
        return bench
    yield start
    bench.activate(False)
    bench.kill_policy()           # the next test starts the keyframe policy


@pytest.mark.long
@pytest.mark.parametrize("execution", ["asynchronous", "overlap", "blocking"])
def test_dense_actions_move_the_arm_on_in_every_way_of_execution(streaming, execution):
    rig = streaming(execution)
    rig.instruct("nowhere", False)
    rig.begin()
    begin = rig.position()
    rig.instruct("creep" if execution == "asynchronous" else "creep by chunk", False)
    rig.proposals.clear()
    executed = set()
    rig.until(lambda: executed.add(rig.status.sequence) or rig.position()[1] > begin[1] + 0.06, "motion", 40)
    moved = [proposal for proposal in list(rig.proposals) if "creep" in proposal.instruction]
    assert len(executed) >= 4 and rig.state("ACTIVE")
    assert abs(rig.position()[0] - begin[0]) < 0.005 and rig.report("").limit_violations == 0
    stamps = np.array([proposal.header.stamp.to_sec() for proposal in moved])
    if execution == "asynchronous":
        assert np.diff(stamps).min() < 2 * PERIOD and {proposal.chunk for proposal in moved} == {1}
        return
    whole = CHUNK * PERIOD
    assert max(proposal.chunk for proposal in moved) >= CHUNK - 1
    if execution == "blocking":
        assert np.diff(stamps).min() > whole - 0.02, "no prediction sees the arm on its way"
    else:
        assert np.median(np.diff(stamps)) > 0.6 * whole, "a chunk is carried out before the next one is predicted"
