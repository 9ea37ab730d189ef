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
        stamp_ns: Of its observation, ns.
        spread: Newest minus oldest image, s.
        instruction: It followed.
        checkpoint_sha256: That made it.
        action: (K, A).
        ms: Of its stages, ms.
        age: Of its observation when it was made, s.
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
    """One observation to predict from.

    Attributes:
        time: Since the recording's begin, s.
        inference: The observation and the bases of its targets.
        joints: (dof,) rad and opening of each arm.
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
        index: Among all rows.
        recording: Number of the recording.
        time: Since its begin, s.
        stamp_ns: Of the observation, ns.
        instruction: It was asked for.
        kind: Of the frame.
        bases: Of the targets, one for each arm.
        targets: Of the first step, one for each arm.
        truth: What the recording did; None where that is not known.
        why: Why nothing is compared.
        error: (arms, 3) predicted minus recorded target in the base frames, m.
        angle: Between them, largest over the arms, rad.
        gripper_ok: Every gripper agrees.
        fused: The paths were averaged.
        confidence: Mean of the tokens.
        token_confidence: (A,).
        hits: (A,) whether each token was right.
        path_distance: Between the paths, m.
        path_angle: The same, rad.
        spread: Newest minus oldest image, s.
        state_outside: The state lies outside the range of the statistics.
        reproduction: Distance to the recorded proposal of this very checkpoint, m.
        filter: What the safety filter did with the proposal.
        pictures: JPEG by view, of chosen moments.
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
        """m, largest over the arms; NaN where nothing is compared."""
        return float("nan") if self.error is None else float(np.linalg.norm(self.error, axis=1).max())

    @property
    def phase(self) -> str:
        return self.truth.phase if self.truth is not None else ""

    def badness(self, radius: float, gripper: float) -> float:
        """One number to sort the worst moments by, m: distance, angle at a radius, a wrong gripper."""
        if self.error is None:
            return 0.0
        return self.distance + radius * self.angle + gripper * (not self.gripper_ok)


def compared(rows: List[Row]) -> List[Row]:
    return [row for row in rows if row.error is not None]
