"""A policy server in a process of its own that tests kill and stop, and that can lie. Run as a program, this is that process.

usage: remote_bench.py PORT BEHAVIOUR     (honest, slow, swapped, creeping, or a lie of LIES)
"""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.paths import ROOT
from hybridvla_core.transforms.conventions import ActionConvention

CONVENTION = ActionConvention(
    arms=("arm",), translation="delta_base_frame", rotation="absolute_euler_xyz", rotation_reference_xyzw=(1.0, 0, 0, 0),
    gripper_sense="one_is_open", delta_base="measured", action_period_s=0.0, state_source="measured")
VIEWS = ("front", "wrist")
SLOW_S = 0.6


class Echo:
    """A policy whose action is computed from what it was shown, so that a mix-up becomes visible."""

    cameras, convention, manifest_sha256 = VIEWS, CONVENTION, "a" * 64

    def __init__(self, delay=0.0):
        self.delay = delay

    def predict(self, observation, mode=None, seed=0):
        time.sleep(self.delay)
        if "crash" in observation.instruction:
            raise ZeroDivisionError("secret of the inside")
        first = [float(observation.images[view][0, 0, 0]) for view in self.cameras[:2]]
        action = np.array([[*first, len(observation.instruction), *observation.state[3:6], float(seed)]])
        return Prediction(action=action, mode=mode or Mode.ENSEMBLE, fused=True, diffusion=action, autoregressive=action * 2,
                          token_confidence=np.linspace(0, 1, 7), mean_confidence=0.5, stage_ms={"vision": 1.5}, passes=3)


class Swapped(Echo):
    """The policy of the same server after somebody restarted it with another checkpoint."""

    cameras, manifest_sha256 = ("wrist", "front"), "b" * 64


class Creeping(Echo):
    """A policy that moves the simulated rig's arm far to the left, by one slow keyframe."""

    cameras = ("front",)

    def predict(self, observation, mode=None, seed=0):
        action = np.array([[0.0, 0.3, 0.0, *observation.state[3:6], 1.0]])
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action)


LIES = {"nan": lambda reply: {**reply, "actions": reply["actions"] * np.nan},
        "two_arms": lambda reply: {**reply, "actions": np.tile(reply["actions"], 2)},
        "nothing": lambda reply: {key: value for key, value in reply.items() if key != "actions"},
        "text": lambda reply: {**reply, "actions": "forwards"},
        "late": lambda reply: {**reply, "stamp_ns": reply["stamp_ns"] - 1}}


def observation(stamp=7, instruction="put it down"):
    images = {view: np.full((48, 64, 3), 10 * (1 + number), dtype=np.uint8) for number, view in enumerate(VIEWS)}
    return Observation(images, instruction, np.arange(7) / 10.0, stamp)


@contextlib.contextmanager
def server(behaviour="honest", port=0):
    """Yields the process and its port; ends the process afterwards."""
    command = [sys.executable, __file__, str(port), behaviour]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{Path(__file__).parent}"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, encoding="ascii")
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        process.stdout.close()


def main(port, behaviour):
    from hybridvla_core.policy.remote.dialect import OwnDialect
    from hybridvla_core.policy.remote.server import PolicyServer, ServerSettings

    class Liar(OwnDialect):
        def reply(self, prediction, policy, stamp_ns):
            return LIES[behaviour](super().reply(prediction, policy, stamp_ns))

    kinds = {"swapped": Swapped, "creeping": Creeping}
    policy = kinds.get(behaviour, Echo)(SLOW_S if behaviour == "slow" else 0.0)
    answering = PolicyServer(policy, Liar() if behaviour in LIES else OwnDialect(), ServerSettings(port=port))
    print(answering.address[1], flush=True)
    answering.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
