"""A policy in your own process: an image, a sentence and the arm's state go in, an action and a target pose come out.

    .venv/bin/python examples/policy_in_process.py
"""
from __future__ import annotations

import numpy as np

from hybridvla_core.contracts import Observation
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.predictor import Policy

INSTRUCTION = "put the red block on the green pad"
STATE = [0.45, 0.0, 0.4, np.pi, 0.0, 0.0, 1.0]     # x, y, z (m), roll, pitch, yaw (rad), gripper (1: open)


def main() -> None:
    """Predicts once with the shipped checkpoint."""
    policy = Policy.from_checkpoint(ROOT / "checkpoints" / "tiny")
    pictures = {view: np.full((240, 320, 3), 128, np.uint8) for view in policy.cameras}    # RGB; on a robot, a camera's images
    prediction = policy.predict(Observation(pictures, INSTRUCTION, np.array(STATE), stamp_ns=0), seed=0)

    action = prediction.action[0]
    print(f"instruction      {INSTRUCTION}")
    print(f"move by          {np.round(action[:3], 3)} m")
    print(f"gripper          {'open' if action[6] > 0.5 else 'close'}")
    print(f"mean confidence  {prediction.mean_confidence:.2f}, {'fused' if prediction.fused else 'not fused'}")
    print(f"what the numbers mean: {policy.convention.translation}, {policy.convention.rotation}")


if __name__ == "__main__":
    main()
