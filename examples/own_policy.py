"""Your own model in front of the safety filter: it answers a policy node over the openpi wire, from any Python and any computer.

    .venv/bin/python examples/own_policy.py
    roslaunch hybridvla sim.launch server:=ws://127.0.0.1:8000 instruction:='up and down'
"""
from __future__ import annotations

import sys
import threading

import numpy as np

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.remote.client import RemotePolicy
from hybridvla_core.policy.remote.dialect import OwnDialect
from hybridvla_core.policy.remote.server import PolicyServer, ServerSettings
from hybridvla_core.policy.remote.settings import RemoteSource


class OwnPolicy:
    """Put your model here. Its numbers have the meaning that config/policies/tiny.yaml states, so that file fits it."""

    cameras, manifest_sha256 = ("front",), ""
    convention = load_file(PolicyConfig, ROOT / "config" / "policies" / "tiny.yaml").convention
    down = True

    def predict(self, observation: Observation, mode: object = None, seed: int = 0) -> Prediction:
        """Moves up and down between 0.3 and 0.4 m, by the state alone; `observation` also holds images and instruction."""
        self.down = observation.state[2] > (0.3 if self.down else 0.4)
        action = np.array([[0.0, 0.0, -0.04 if self.down else 0.04, 0.0, 0.0, 0.0, 1.0]])
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action)


def main() -> None:
    """Serves until Ctrl-C; with --once, asks itself one question instead."""
    once = "--once" in sys.argv
    server = PolicyServer(OwnPolicy(), OwnDialect(), ServerSettings(port=0 if once else 8000))
    print(f"answering at ws://127.0.0.1:{server.address[1]}", flush=True)
    if not once:
        server.serve_forever()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    policy = RemotePolicy(RemoteSource(f"ws://127.0.0.1:{server.address[1]}"))
    seen = Observation({"front": np.zeros((256, 256, 3), np.uint8)}, "up and down", np.zeros(7), stamp_ns=1)
    print(f"move by {policy.predict(seen).action[0][:3]} m")
    policy.close()
    server.close()


if __name__ == "__main__":
    main()
