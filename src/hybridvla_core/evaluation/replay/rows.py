"""One replayed moment: what was seen, what was predicted, what the robot did next."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import ArmTarget, Pose
from hybridvla_core.evaluation.replay.truth import Truth
from hybridvla_core.policy.proposing.proposals import Inference

PERIOD, DECISION = "period", "decision"


@dataclass(frozen=True)
class RecordedProposal:
    """A proposal found in a recording.

    Attributes:
        stamp_ns: Stamp of its observation, ns.
        spread: Newest minus oldest image, s.
        instruction: Instruction that it followed.
        checkpoint_sha256: Digest of the checkpoint that made it.
        action: (K, A) predicted action.
        ms: Times of its stages, ms.
        age: Age of its observation when it was made, s.
    """

    stamp_ns: int
    spread: float
    instruction: str
    checkpoint_sha256: str
    action: np.ndarray
    ms: float
    age: float


@dataclass(frozen=True)
class Frame:
    """One observation from which to predict.

    Attributes:
        time: Time since the recording's begin, s.
        inference: The observation and the bases of its targets.
        joints: (dof,) joints, rad, and gripper opening of each arm.
        recorded: The proposal that the recording holds for this very observation.
        kind: PERIOD or DECISION.
    """

    time: float
    inference: Inference
    joints: Tuple[Tuple[np.ndarray, float], ...]
    recorded: Optional[RecordedProposal] = None
    kind: str = PERIOD


@dataclass
class Row:
    """Result of one frame.

    Attributes:
        index: Index among all rows.
        recording: Number of the recording.
        time: Time since the recording's begin, s.
        stamp_ns: Stamp of the observation, ns.
        instruction: Instruction that the policy was given.
        kind: Kind of the frame.
        bases: Bases of the targets, one for each arm.
        targets: Targets of the first step, one for each arm.
        truth: What the robot did in the recording; None if that is not known.
        why: Why nothing is compared.
        error: (arms, 3) predicted minus recorded target in the base frames, m.
        angle: Angle between predicted and recorded target, largest over the arms, rad.
        gripper_ok: Whether every gripper agrees.
        fused: Whether the paths were averaged.
        confidence: Mean confidence of the tokens.
        token_confidence: (A,) confidence of each token.
        hits: (A,) whether each token was right.
        path_distance: Distance between the paths, m.
        path_angle: Angle between the paths, rad.
        spread: Newest minus oldest image, s.
        state_outside: Whether the state is outside the range of the statistics.
        reproduction: Distance to the recorded proposal of this very checkpoint, m.
        filter: What the safety filter did with the proposal.
        pictures: JPEGs by view, for selected moments.
    """

    index: int
    recording: int
    time: float
    stamp_ns: int
    instruction: str
    kind: str
    bases: Tuple[Pose, ...]
    targets: Tuple[ArmTarget, ...]
    truth: Optional[Truth] = None
    why: str = ""
    error: Optional[np.ndarray] = None
    angle: float = float("nan")
    gripper_ok: Optional[bool] = None
    fused: bool = False
    confidence: float = float("nan")
    token_confidence: Optional[np.ndarray] = None
    hits: Optional[np.ndarray] = None
    path_distance: float = float("nan")
    path_angle: float = float("nan")
    spread: float = 0.0
    state_outside: bool = False
    reproduction: float = float("nan")
    filter: Optional[Any] = None
    pictures: Dict[str, bytes] = field(default_factory=dict)

    @property
    def distance(self) -> float:
        """Distance between predicted and recorded target, m, largest over the arms; NaN if nothing is compared."""
        return float("nan") if self.error is None else float(np.linalg.norm(self.error, axis=1).max())

    @property
    def phase(self) -> str:
        return self.truth.phase if self.truth is not None else ""

    def badness(self, radius: float, gripper: float) -> float:
        """Returns one number by which the worst moments are sorted, m: distance, angle at a radius, a wrong gripper."""
        if self.error is None:
            return 0.0
        return self.distance + radius * self.angle + gripper * (not self.gripper_ok)


def compared(rows: List[Row]) -> List[Row]:
    return [row for row in rows if row.error is not None]
