"""Turns frames into rows: predictions in batches, proposals through the filter, errors against what the robot did next."""
from __future__ import annotations

import itertools
from concurrent.futures import BrokenExecutor, Future
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.contracts import Prediction, Proposal
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.reliability import ModelPolicy, hits
from hybridvla_core.evaluation.replay.filtering import FilterJob, FilterPool
from hybridvla_core.evaluation.replay.gallery import Gallery
from hybridvla_core.evaluation.replay.rows import Frame, RecordedProposal, Row
from hybridvla_core.evaluation.replay.settings import ReplayConfig
from hybridvla_core.evaluation.replay.truth import Truth, TruthFinder
from hybridvla_core.geometry.poses import angle, distance
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.interface import BatchPolicy
from hybridvla_core.policy.proposing.proposals import make_proposal
from hybridvla_core.robots.config import RobotConfig

MOST_WAITING = 64        # filter jobs in progress; more would let memory grow with the recording
STATE_SLACK = 0.02       # share of a channel's range: a state this far outside still counts as inside
HIDDEN_SLACK = 0.1       # m, rad or 1: slack of a channel that was constant in the data, and is hidden from the model



class Evaluator:
    """Runs one policy over the frames of one recording after the other.

    worst: how many pictures of the worst moments are kept; film_every_s: spacing of the filmstrip, s of the recording.
    """

    def __init__(self, policy: BatchPolicy, config: PolicyConfig, robot: RobotConfig, settings: ReplayConfig,
                 pool: FilterPool, batch: int = 16, worst: int = 12, film_every_s: float = 10.0) -> None:
        self.policy, self.config, self.robot, self.settings = policy, config, robot, settings
        self.rows: List[Row] = []
        self._pool, self._batch = pool, max(1, batch)
        self._gallery = Gallery(worst, film_every_s, settings.senses.radius_m, settings.senses.gripper_m)
        self._frames: List[Frame] = []
        self._waiting: List[Tuple[Row, Future]] = []
        self._last_full: Optional[Proposal] = None
        self._full_at = -np.inf
        self._recording = -1
        self._finder: Optional[TruthFinder] = None
        self._model: Optional[ModelPolicy] = policy if isinstance(policy, ModelPolicy) else None
        self._order = [config.convention.arms.index(arm.name) for arm in robot.arms]

    def begin(self, recording: int, finder: TruthFinder) -> None:
        """Begins another recording: the frames that follow belong to it."""
        self.flush()
        self._recording, self._finder, self._last_full = recording, finder, None
        self._gallery.begin()

    def add(self, frame: Frame) -> None:
        self._frames.append(frame)
        if len(self._frames) >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Predicts the waiting frames."""
        frames, self._frames = self._frames, []
        if not frames:
            return
        observations = [frame.inference.observation for frame in frames]
        mode, seed = self.config.inference_mode, self.config.seed
        if self._batch == 1:
            predictions = [self.policy.predict(observations[0], mode=mode, seed=seed)]
        else:
            predictions = self.policy.predict_batch(observations, mode=mode, seed=seed)
        for frame, prediction in zip(frames, predictions):
            self._one(frame, prediction)

    def finish(self) -> None:
        """Predicts the rest and waits for the filter; call it after the last frame."""
        self.flush()
        self._collect(0)

    def _one(self, frame: Frame, prediction: Prediction) -> None:
        proposal = make_proposal(self.config, self.policy, frame.inference, prediction, 1, len(self.rows) + 1, 0.0)
        arms = len(self.config.convention.arms)
        observation = frame.inference.observation
        assert self._finder is not None, "begin comes first"
        truth, why = self._finder.find(frame.inference.stamp)
        row = Row(len(self.rows), self._recording, frame.time, observation.stamp_ns, observation.instruction, frame.kind,
                  tuple(pose for pose, _ in frame.inference.bases), proposal.targets[:arms], truth, why,
                  fused=bool(prediction.fused), confidence=float(prediction.mean_confidence),
                  token_confidence=prediction.token_confidence, path_distance=float(prediction.path_distance),
                  path_angle=float(prediction.path_angle), spread=frame.inference.camera_spread)
        if truth is not None:
            self._compare(row, truth, prediction)
        row.state_outside = self._state_outside(observation.state)
        if frame.recorded is not None and self._asked_alike(frame.recorded, observation.instruction):
            # The live node dropped the steps whose time had passed when it sent its proposal.
            recorded, action = frame.recorded.action, np.atleast_2d(prediction.action)
            if len(recorded) <= len(action) and recorded.shape[1] == action.shape[1]:
                row.reproduction = action_distance(recorded, action[-len(recorded):])
        self.rows.append(row)
        self._filter(row, frame, proposal)
        self._gallery.add(row, frame)

    def _asked_alike(self, recorded: RecordedProposal, instruction: str) -> bool:
        """Tells whether this very checkpoint made the proposal, for the same instruction if the proposal names one."""
        return recorded.checkpoint_sha256 == self.policy.manifest_sha256 and recorded.instruction in ("", instruction)

    def _compare(self, row: Row, truth: Truth, prediction: Prediction) -> None:
        row.error = np.array([np.asarray(target.target.position) - arm.pose.position
                              for target, arm in zip(row.targets, truth.arms)])
        row.angle = max(angle(target.target, arm.pose) for target, arm in zip(row.targets, truth.arms))
        row.gripper_ok = all((target.gripper < 0.5) == arm.closed for target, arm in zip(row.targets, truth.arms))
        row.hits = self._hits(row, truth, prediction)

    def _hits(self, row: Row, truth: Truth, prediction: Prediction) -> Optional[np.ndarray]:
        """Returns (A,) whether the recorded value is in the decoded bin or within the checkpoint's confidence window."""
        if self._model is None:
            return None
        from hybridvla_core.transforms.conventions import target_to_action

        wanted = np.concatenate([target_to_action(self.config.convention, arm.pose, 0.0 if arm.closed else 1.0, base)
                                 for arm, base in zip(truth.arms, row.bases)])
        return hits(self._model, wanted, prediction)

    def _state_outside(self, state: np.ndarray) -> bool:
        if self._model is None:
            return False
        scale = self._model.normaliser.state
        # A compliant arm's tilt never quite equals the constant of the data; a tilt far from it means another convention.
        slack = np.where(scale.hidden, HIDDEN_SLACK, STATE_SLACK * (scale.q99 - scale.q01))
        return bool(((state < scale.q01 - slack) | (state > scale.q99 + slack))[scale.mask].any())

    # The filter ----------------------------------------------------------------------------------------------------

    def _filter(self, row: Row, frame: Frame, proposal: Proposal) -> None:
        full = self._is_new(proposal, frame.time)
        if full:
            self._last_full, self._full_at = proposal, frame.time
        # The robot may order its arms differently than the action does.
        chunk, arms = proposal.chunk, len(self._order)
        targets = tuple(proposal.targets[step * arms + index] for step in range(chunk) for index in self._order)
        bare = Proposal(**{**vars(proposal), "targets": targets, "prediction": None})
        job = FilterJob(bare, tuple(frame.joints[index] for index in self._order), full)
        self._waiting.append((row, self._pool.submit(job)))
        self._collect(MOST_WAITING)

    def _is_new(self, proposal: Proposal, time: float) -> bool:
        last, rules = self._last_full, self.settings.filter
        if last is None or last.instruction_sequence != proposal.instruction_sequence:
            return True
        if time - self._full_at < rules.full_every_s:
            return False
        return any(distance(a.target, b.target) > rules.new_target_m or angle(a.target, b.target) > rules.new_target_rad
                   or abs(a.gripper - b.gripper) > 0.5 for a, b in zip(last.targets, proposal.targets))

    def _collect(self, leave: int) -> None:
        while len(self._waiting) > leave:
            row, future = self._waiting.pop(0)
            try:
                row.filter = future.result()
            except BrokenExecutor as error:
                raise HybridVLAError("the process that runs the safety filter beside the model has ended; was it killed, or "
                                     "is the memory used up?") from error

    @property
    def worst(self) -> List[Row]:
        """Returns the worst moments, the worst first."""
        return self._gallery.worst


def action_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the largest distance, m, between the translations of two actions (K, A)."""
    steps = [np.linalg.norm((first - second)[:, start:start + 3], axis=1).max() for start in range(0, first.shape[1], 7)]
    return float(max(steps))


def by(rows: Sequence[Row], key: str) -> Dict[str, List[Row]]:
    """Groups rows by an attribute, sorted by its value."""
    ordered = sorted(rows, key=lambda row: getattr(row, key))
    return {name: list(group) for name, group in itertools.groupby(ordered, key=lambda row: getattr(row, key))}
