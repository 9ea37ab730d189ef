"""The real policy node around a policy without a model, which moves by a word of the instruction, quickly or slowly."""
from __future__ import annotations

import time

import numpy as np

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Mode, Prediction
from hybridvla_core.errors import DeviceError
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_ros import policy_node
from hybridvla_ros.runtime.node_support import package_path, require_parameter, run_node

STEPS = {"creep": (0.0, 0.005, 0.0), "forward": (0.05, 0.0, 0.0), "left": (0.0, 0.05, 0.0), "right": (0.0, -0.05, 0.0),
         "across": (0.0, 0.3, 0.0), "down": (0.0, 0.0, -0.06), "far": (0.9, 0.0, 0.0), "nonsense": (float("nan"), 0.0, 0.0)}
SLOW_S = 1.5
CHUNK = 4


class FakePolicy:
    """A policy with the interface of `Policy` and the convention of its configuration. In the instruction, "slow" makes an
    inference take SLOW_S, "lost" loses the GPU, and "chunk" makes it predict CHUNK actions at once."""

    cameras = ("front",)
    manifest_sha256 = "0" * 64

    def __init__(self):
        self.convention = load_file(PolicyConfig, package_path(require_parameter("policy_config"))).convention

    def predict(self, observation, mode=None, seed=0):
        if "lost" in observation.instruction:
            raise DeviceError("cuda:0 failed during a prediction (it has fallen off the bus); restart the policy")
        if "slow" in observation.instruction:
            time.sleep(SLOW_S)
        word = next((word for word in STEPS if word in observation.instruction), "")
        action = np.array([[*STEPS.get(word, (0.0, 0.0, 0.0)), 0.0, 0.0, 0.0, 1.0]])
        if "chunk" in observation.instruction:
            action = np.repeat(action, CHUNK, axis=0)
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action)


if __name__ == "__main__":
    run_node("policy_node", lambda: policy_node.main(FakePolicy()))
