"""The real policy node with a remote policy: the arm follows it, and holds when the server dies or hangs."""
from __future__ import annotations

import os
import signal
import sys
import time

import pytest
import remote_bench

from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.patience import patience

#: Longest time until the arm holds, s: the link's timeout (0.2), a heartbeat's period (0.1), and transport, a tick and this
#: test's own poll on a shared computer.
HELD_S = 0.5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_a_server_that_ends_or_hangs_holds_the_arm(rig, number):
    import rospy

    rig.kill_policy()
    with remote_bench.server("creeping") as (process, port):
        rig.heartbeat = None
        rig.policy = rig.graph.start(
            [sys.executable, str(ROOT / "nodes/policy_node"), "_robot_config:=config/robots/sim_fr3.yaml",
             "_policy_config:=config/policies/tiny.yaml", f"_server:=ws://127.0.0.1:{port}"], "remote.log")
        rig.until(lambda: rig.heartbeat is not None and not rig.heartbeat.warming_up, "a heartbeat", 40)
        rospy.wait_for_service("/hybridvla/policy/set_instruction", 20)
        rig.begin()
        before = rig.position()
        rig.instruct("left", False)
        rig.until(lambda: rig.position()[1] > before[1] + 0.01, "motion to the left")
        os.kill(process.pid, number)
        ended = time.monotonic()
        rig.until(lambda: rig.state("HOLDING"), "a hold")
        assert time.monotonic() - ended < patience(HELD_S)
        rig.until(lambda: "the remote policy" in rig.status.message, "the reason")
    rig.kill_policy()
