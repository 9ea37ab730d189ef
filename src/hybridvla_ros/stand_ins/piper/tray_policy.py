"""A scripted policy for the dual-arm stand-in, behind the real policy node: proposals, heartbeats and views as with a model.

There is no trained dual-arm checkpoint; this policy takes its place on the same interface. It uses the state it is given and
asks the rig where the tray is; it waits for the three images and synchronises them as for a model, but does not understand them.
"""
from __future__ import annotations

import json
import time
from typing import Union

import numpy as np

from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.transforms.conventions import ActionConvention
from hybridvla_ros.stand_ins.expert_policy import DUAL_REPORT, rig_report
from hybridvla_sim.tasks.tray.expert import REACH, next_keyframe, tools_in_shared_frame
from hybridvla_sim.tasks.tray.task import INSTRUCTION, TrayState

CONVENTION = ActionConvention(
    arms=("right", "left"), translation="delta_base_frame", rotation="absolute_euler_xyz",
    rotation_reference_xyzw=tuple(float(x) for x in np.round(REACH.as_quat(), 12)), gripper_sense="one_is_open",
    delta_base="measured", action_period_s=0.0, state_source="measured")


class TrayPolicy:
    """A policy with the members of policy/interface.py. Any instruction that is not the task means: stay."""

    cameras = ("front", "right", "left")
    manifest_sha256 = "0" * 64
    convention = CONVENTION

    def __init__(self) -> None:
        self._report = rig_report(DUAL_REPORT)

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        began = time.perf_counter()
        state = np.asarray(observation.state, dtype=float).reshape(2, 7)
        action = np.zeros((1, 14))
        action[0, 3:6], action[0, 10:13] = state[0, 3:6], state[1, 3:6]
        action[0, 6], action[0, 13] = state[0, 6], state[1, 6]
        if observation.instruction == INSTRUCTION:
            tray = json.loads(self._report("").report)["tray"]
            scene = TrayState(np.array(tray["position"]), tray["yaw"], np.array(tray["block"]), tuple(tray["openings"]))
            tools = tools_in_shared_frame({arm: state[i, :3] for i, arm in enumerate(CONVENTION.arms)})
            for index, arm in enumerate(CONVENTION.arms):
                hand = next_keyframe(scene, tools)[1][arm]
                action[0, 7 * index:7 * index + 3] = hand.position - state[index, :3]
                action[0, 7 * index + 3:7 * index + 6] = (hand.rotation * REACH.inv()).as_euler("xyz")
                action[0, 7 * index + 6] = hand.opening
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action,
                          stage_ms={"script": (time.perf_counter() - began) * 1e3})


def main() -> None:
    from hybridvla_ros import policy_node

    policy_node.main(TrayPolicy())
