"""Measures the age of the observation behind the executed command, end to end, under each way of execution.

The real `Proposer` runs on an injected clock between a stand-in camera, a stand-in policy with a given latency, and a
stand-in filter. The filter executes a chunk row by row from its receipt, or a keyframe until it is reached.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Tuple, cast

import numpy as np

from hybridvla_core.contracts import ArmState, Mode, Pose, Prediction, Proposal
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_core.policy.proposing.proposer import Proposer
from hybridvla_core.report.statistics import percentiles

TICK_S, WARM_UP_S, EPOCH = 0.005, 5.0, 1


@dataclass(frozen=True)
class Setting:
    """One situation to simulate.

    Attributes:
        execution: Way of execution, as in the policy's configuration.
        latency_s: Latency of a prediction, s.
        chunk: Rows of a prediction.
        period_s: Period of a row, s; 0: keyframes.
        jitter: Relative scatter of the latency.
        camera_rate_hz: Rate of the camera's frames, Hz.
        camera_delay_s: Delay of the camera's frames, s.
        keyframe_s: Time after which a keyframe is reached, s.
    """

    execution: str
    latency_s: float
    chunk: int = 1
    period_s: float = 0.1
    jitter: float = 0.05
    camera_rate_hz: float = 30.0
    camera_delay_s: float = 0.02
    keyframe_s: float = 1.0


class _Stand:
    """A policy with nothing but a checkpoint's digest; the simulation makes its predictions."""

    manifest_sha256 = "0" * 64


class Simulation:
    """Runs one setting in simulated time."""

    def __init__(self, base: PolicyConfig, setting: Setting, seed: int = 0) -> None:
        convention = replace(base.convention, action_period_s=setting.period_s, delta_base="measured",
                             state_source="measured")
        self.config = replace(base, convention=convention, execution=setting.execution, prediction_rate_hz=100.0)
        self.setting, self.now, self._rng = setting, 1.0, np.random.default_rng(seed)
        self.proposer = Proposer(cast(PolicyInterface, _Stand()), self.config, epoch=EPOCH, publish=self._receive,
                                 clock=lambda: self.now, monotonic=lambda: self.now)
        self._pending: Optional[Tuple[float, Any]] = None
        self._executing: Optional[Tuple[float, Proposal]] = None
        self._frame, self._used, self._next_frame = -1.0, -1.0, self.now
        self.ages: List[float] = []
        self.errors: List[float] = []
        self.published: List[float] = []
        self.ticks = self.idle = 0

    def run(self, duration_s: float) -> Dict[str, Any]:
        self.proposer.set_instruction("pick up the red block")
        end = self.now + duration_s
        while self.now < end:
            self.now += TICK_S
            self._sense()
            self._infer()
            self._execute()
        return self._result()

    def _receive(self, proposal: Proposal) -> None:
        if proposal.targets:
            self._executing = (self.now, proposal)
            if self.now > WARM_UP_S:
                self.published.append(proposal.observation_age)

    def _sense(self) -> None:
        setting = self.setting
        while self._next_frame + setting.camera_delay_s <= self.now:
            self._frame = self._next_frame
            self._next_frame += 1.0 / setting.camera_rate_hz
        pose = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
        for name in self.config.convention.arms:
            self.proposer.on_arm_state(ArmState(name, (), np.zeros(0), pose=pose, gripper=1.0), self.now)

    def _infer(self) -> None:
        if self._pending is not None:
            if self.now < self._pending[0]:
                return
            action = np.zeros((self.setting.chunk, self.config.convention.action_dim))
            self.proposer.finish(self._pending[1], Prediction(action, Mode.DIFFUSION, False, diffusion=action))
            self._pending = None
        due = self.proposer.due()
        if not due or self._frame <= self._used or not self.proposer.wants(self._frame):
            return
        size = {camera.view: (camera.height_px or 64, camera.width_px or 64) for camera in self.config.cameras}
        images = {view: np.zeros((*hw, 3), dtype=np.uint8) for view, hw in size.items()}
        inference = self.proposer.begin(images, int(round(self._frame * 1e9)))
        self._used = self._frame
        scatter = 1.0 + self.setting.jitter * self._rng.standard_normal()
        self._pending = (self.now + self.setting.latency_s * max(scatter, 0.1), inference)

    def _execute(self) -> None:
        counted = self.now > WARM_UP_S
        self.ticks += counted
        if self._executing is None:
            self.idle += counted
            return
        since, proposal = self._executing
        elapsed = self.now - since
        if self.config.is_keyframe:
            moving = elapsed < self.setting.keyframe_s
            self.proposer.on_execution(EPOCH, proposal.sequence, not moving)
        else:
            moving = elapsed < proposal.chunk * self.setting.period_s
        if not counted:
            return
        self.idle += not moving
        if moving:
            self.ages.append(self.now - proposal.stamp)
            if self.config.execution_way != "blocking" and not self.config.is_keyframe:
                # The first row sent is the original chunk's row that was due at publishing.
                first = self.setting.chunk - proposal.chunk
                self.errors.append(elapsed + first * self.setting.period_s - (self.now - proposal.stamp))

    def _result(self) -> Dict[str, Any]:
        def spread(values: List[float]) -> Dict[str, float]:
            return percentiles([1e3 * value for value in values], 1)

        return {"execution": self.config.execution_way, "chunk": self.setting.chunk, "period_s": self.setting.period_s,
                "latency_ms": round(self.setting.latency_s * 1e3, 1), "observation_age_at_publishing_ms": spread(self.published),
                "command_staleness_ms": spread(self.ages), "timing_error_ms": spread([abs(e) for e in self.errors]),
                "idle_share": round(self.idle / max(self.ticks, 1), 4), "predictions": len(self.published)}


def measure(base: PolicyConfig, latency_s: float, duration_s: float = 60.0) -> List[Dict[str, Any]]:
    """Measures keyframes, single dense actions and chunks of eight under every way of execution that suits them."""
    cases = [Setting(way, latency_s, 1, 0.0) for way in ("blocking", "asynchronous")]
    cases += [Setting(way, latency_s, 1, max(latency_s, 0.05)) for way in ("blocking", "asynchronous")]
    cases += [Setting(way, latency_s, 8, 0.05) for way in ("blocking", "overlap", "asynchronous")]
    return [Simulation(base, case).run(duration_s) for case in cases]
