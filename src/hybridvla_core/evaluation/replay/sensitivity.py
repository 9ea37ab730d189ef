"""Does the policy look and listen? Tests the same moments with another instruction, without a camera, with a frozen state.

How far the target moves only means something relative to how far it moves by chance, between noise seeds.
"""
from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from hybridvla_core.contracts import ArmTarget, Observation
from hybridvla_core.errors import ObservationError
from hybridvla_core.evaluation.replay.rows import Frame
from hybridvla_core.evaluation.replay.settings import SensitivityConfig
from hybridvla_core.geometry.poses import angle, distance
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.interface import BatchPolicy
from hybridvla_core.policy.proposing.proposals import targets_of


@dataclass(frozen=True)
class SensitivityResult:
    """How far the target moves when something is taken away.

    Attributes:
        spread: Movement between noise seeds, m, one number per moment.
        moves: Sense -> largest movement over its variants, m, one number per moment.
        skipped: Sense -> why it was not tested.
        single_ms: Wall time of single predictions, ms.
        batch_difference: Difference between a batch and single predictions, m.
    """

    spread: Sequence[float]
    moves: Dict[str, List[float]]
    skipped: Dict[str, str]
    single_ms: Sequence[float]
    batch_difference: float


class SensitivityCheck:
    """Tests the senses of a policy. other_instructions: other instructions that occur in the recordings."""

    def __init__(self, policy: BatchPolicy, config: PolicyConfig, settings: SensitivityConfig,
                 other_instructions: Sequence[str]) -> None:
        self._policy, self._config, self._settings = policy, config, settings
        self._others = list(other_instructions)

    def run(self, frames: Sequence[Frame]) -> SensitivityResult:
        """Runs the test. frames: moments spread over the recordings; their images are changed one at a time."""
        spread: List[float] = []
        moves: Dict[str, List[float]] = {}
        skipped: Dict[str, str] = {}
        single_ms: List[float] = []
        difference = 0.0
        for index, frame in enumerate(frames):
            other = frames[(index + max(1, len(frames) // 2)) % len(frames)]
            observation = frame.inference.observation
            started = time.perf_counter()
            base = self._policy.predict(observation, mode=self._config.inference_mode, seed=self._config.seed)
            single_ms.append((time.perf_counter() - started) * 1e3)
            target = targets_of(self._config, frame.inference, base)
            seeds = [self._config.seed + 1 + k for k in range(self._settings.seeds)]
            spread.append(max(self._moved(frame, target, [observation], seed)[0] for seed in seeds))
            variants = self._variants(observation, other.inference.observation, skipped)
            flat = [variant for group in variants.values() for variant in group]
            moved = iter(self._moved(frame, target, [observation, *flat], self._config.seed))
            difference = max(difference, next(moved))
            for name, group in variants.items():
                moves.setdefault(name, []).append(max(next(moved) for _ in group))
        if len(frames) and not any(name == "instruction" for name in moves):
            skipped.setdefault("instruction", "the recordings hold one instruction only; give others with "
                                              "--other-instruction")
        return SensitivityResult(spread, moves, skipped, single_ms, difference)

    def _moved(self, frame: Frame, target: Sequence[ArmTarget], observations: Sequence[Observation], seed: int) -> List[float]:
        """Returns how far the first step's targets are from `target`, m, for each observation of this moment."""
        predictions = self._policy.predict_batch(observations, mode=self._config.inference_mode, seed=seed)
        arms = len(self._config.convention.arms)
        rules = self._settings
        result = []
        for prediction in predictions:
            pairs = list(zip(target, targets_of(self._config, frame.inference, prediction)))[:arms]
            result.append(max(distance(a.target, b.target) + rules.radius_m * angle(a.target, b.target)
                              + rules.gripper_m * (abs(a.gripper - b.gripper) > 0.5) for a, b in pairs))
        return result

    def _variants(self, here: Observation, other: Observation, skipped: Dict[str, str]) -> Dict[str, List[Observation]]:
        """Returns changed observations of one moment, by the sense that they take away."""
        variants: Dict[str, List[Observation]] = {}
        told = [replace(here, instruction=text) for text in self._others if text != here.instruction]
        told = [variant for variant in told if self._understood(variant, skipped)][:self._settings.instructions]
        if told:
            variants["instruction"] = told
        views = list(here.images)
        for number, view in enumerate(views):
            image = here.images[view]
            group = [_with(here, view, np.zeros_like(image)), _with(here, view, other.images[view])]
            neighbour = views[(number + 1) % len(views)]
            if neighbour != view:
                group.append(replace(here, images={**here.images, view: here.images[neighbour], neighbour: image}))
            variants[f"camera {view}"] = group
        variants["state"] = [replace(here, state=other.state)]
        return variants

    def _understood(self, observation: Observation, skipped: Dict[str, str]) -> bool:
        check = getattr(self._policy, "prompts", None)
        if check is None:
            return True
        try:
            check.prefix_ids(observation.instruction)
        except ObservationError as error:
            skipped[f"instruction {observation.instruction!r}"] = str(error)
            return False
        return True


def _with(observation: Observation, view: str, image: np.ndarray) -> Observation:
    return replace(observation, images={**observation.images, view: image})


def summarise(result: Optional[SensitivityResult], settings: SensitivityConfig) -> Dict[str, Any]:
    """Returns, for machines, each sense's median movement, its ratio to the spread between seeds, and whether it is used."""
    if result is None or not result.spread:
        return {}
    spread = float(np.median(result.spread))
    senses: Dict[str, Any] = {}
    for name, moves in result.moves.items():
        move = float(np.median(moves))
        used = move > settings.min_move_m and (settings.min_ratio is None or move > settings.min_ratio * spread)
        senses[name] = {"median_move_m": round(move, 5), "ratio": round(move / max(spread, 1e-6), 2), "used": used,
                        "moments": len(moves)}
    return {"moments": len(result.spread), "seed_spread_m": round(spread, 5), "senses": senses, "skipped": result.skipped,
            "batch_difference_m": float(result.batch_difference)}
