"""The logic of the policy node without ROS: from observations and an instruction to proposals.

One inference thread calls `due`, `begin`, `Policy.predict`, `finish` (or `step`, which does all of that); other threads call
`set_instruction`, `on_arm_state`, `on_commands`, `on_execution` and `heartbeat`. Everything published passes through the two
callbacks under one lock: proposals leave in order, and none for an old instruction after `set_instruction` has returned.
"""
from __future__ import annotations

import math
import secrets
import threading
import time
from typing import Callable, List, Mapping, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import ArmState, Heartbeat, Kind, Observation, PolicyState, Pose, Prediction, Proposal
from hybridvla_core.errors import ObservationError
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import check_fit, judged_instruction, misfits
from hybridvla_core.policy.interface import HasLink, PolicyInterface
from hybridvla_core.policy.proposing.command_memory import CommandMemory
from hybridvla_core.policy.proposing.pacing import PredictionPacing
from hybridvla_core.policy.proposing.pose_history import PoseHistory
from hybridvla_core.policy.proposing.proposals import Inference, InstructionAnswer, make_proposal, state_input
from hybridvla_core.safety.status import SafetyStatus, State

__all__ = ["InstructionAnswer", "Inference", "Proposer", "check_fit", "misfits"]


class Proposer:
    """Turns observations into proposals for the safety filter.

    Args:
        policy: the policy that predicts.
        config: cameras, convention, rates and limits of an observation.
        epoch: number of this run of the policy; random unless given.
        publish: called with each `Proposal`, never concurrently with itself or `publish_heartbeat`; must not call back.
        publish_heartbeat: called with each `Heartbeat`, under the same rules.
        clock: the clock of image and arm state stamps, s.
        monotonic: the clock of timeouts, s.
    """

    def __init__(self, policy: PolicyInterface, config: PolicyConfig, epoch: Optional[int] = None,
                 publish: Callable[[Proposal], None] = lambda proposal: None,
                 publish_heartbeat: Callable[[Heartbeat], None] = lambda heartbeat: None,
                 clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.policy, self.config = policy, config
        self.convention = config.convention
        # 63 bits, never 0: the status uses epoch 0 for "no proposal".
        self.epoch = secrets.randbits(63) | 1 if epoch is None else int(epoch)
        self._publish, self._publish_heartbeat = publish, publish_heartbeat
        self._clock, self._monotonic = clock, monotonic
        self._lock = threading.RLock()
        self._measured = {name: PoseHistory(name) for name in self.convention.arms}
        self.commands = CommandMemory(self.convention.arms)
        self._instruction = ""
        self._instruction_sequence = 0
        self._sequence = 0
        self._pacing = PredictionPacing(config)
        self._last_begin = -math.inf
        self._seeds: List[Tuple[float, int]] = [(-math.inf, 0)]      # the filter's last two seeds, and since when
        self._state, self._state_since = PolicyState.WAITING, monotonic()
        self._progress = monotonic()
        self._message = "no instruction yet; call set_instruction"
        self.discarded = 0               # number of inferences discarded because the instruction changed meanwhile

    # Inputs ------------------------------------------------------------------------------------------------------

    def set_instruction(self, text: str, hold: bool = False) -> InstructionAnswer:
        """Switches the task. The filter drops the old target because of a HOLD proposal if `hold`, else because of a heartbeat.

        Refuses an instruction that is empty or that the policy cannot use; then nothing changes. Sequences start at 1.

        Returns:
            Whether it was accepted and why, the previous instruction, and the sequence that counts now.
        """
        text = " ".join(str(text).split())
        refusal, remark = judged_instruction(self.policy, text)
        with self._lock:
            previous = self._instruction
            if refusal:
                return InstructionAnswer(False, refusal, previous, self._instruction_sequence)
            self._instruction = text
            self._instruction_sequence += 1
            self._pacing.release(self._clock())
            self._last_begin = -math.inf
            self._message = "instruction accepted"
            if hold:
                self._sequence += 1
                self._publish(Proposal(stamp=self._clock(), epoch=self.epoch, sequence=self._sequence,
                                       instruction_sequence=self._instruction_sequence, instruction=text,
                                       valid_for=self.config.valid_for(1), targets=(), kind=Kind.HOLD,
                                       checkpoint_sha256=self.policy.manifest_sha256))
            self._publish_heartbeat(self._heartbeat())
            return InstructionAnswer(True, ("the instruction was switched" if previous else "the instruction was set") + remark,
                                     previous, self._instruction_sequence)

    def on_arm_state(self, state: ArmState, stamp: float) -> None:
        """Takes a measured state; `stamp` is the driver's, s. Ignores arms that the policy does not move."""
        if state.name in self._measured and state.pose is not None:
            with self._lock:
                self._measured[state.name].add(stamp, state.pose, state.gripper)

    def on_status(self, status: SafetyStatus) -> None:
        """Takes the filter's status: what it executes and what it has sent to the arms."""
        self.on_execution(status.epoch, status.sequence, status.at_target, status.waiting)
        self.on_commands(status.commanded, status.stamp, status.epoch, status.sequence, status.state != State.INACTIVE,
                         status.seed)

    def on_commands(self, poses: Mapping[str, Pose], stamp: float, epoch: int, sequence: int, active: bool,
                    seed: int = 0) -> None:
        """Takes the filter's commands, see `CommandMemory.commanded`. seed: the filter's seed number, which proposals return."""
        with self._lock:
            if seed != self._seeds[-1][1]:
                self._seeds = [self._seeds[-1], (self._clock(), seed)]
        if not self.convention.uses_commands:
            return
        with self._lock:
            self.commands.commanded(poses, stamp, epoch, sequence, active)

    def on_execution(self, epoch: int, sequence: int, at_target: bool, waiting: bool = False) -> None:
        """Takes which proposal the filter executed last, whether all of it is done, and whether the filter waits for another."""
        with self._lock:
            self._pacing.on_execution(epoch == self.epoch, sequence, at_target, waiting, self._monotonic(), self._clock())

    # Inference ---------------------------------------------------------------------------------------------------

    def due(self) -> bool:
        """Returns whether the next prediction may start. Also tells the watchdog that the inference loop is alive."""
        with self._lock:
            now = self._monotonic()
            self._progress = now
            waiting = self._waiting_for(now)
            if waiting:
                self._enter(PolicyState.WAITING, now, waiting)
            return not waiting

    def wants(self, stamp: float) -> bool:
        """Returns whether images of this stamp, s, show the arm at rest and not on its way; see `PredictionPacing.shows_rest`."""
        return self._pacing.shows_rest(stamp, self._clock())

    def covers(self, stamp: float) -> bool:
        """Returns whether states reach up to `stamp`, s, or never will: an observation there then depends on the data alone."""
        return self.covered_until >= stamp or self._clock() - stamp > self.config.max_state_gap_s

    @property
    def covered_until(self) -> float:
        """The stamp up to which every arm's measured states reach, s; -inf while an arm has none."""
        with self._lock:
            return min(history.newest for history in self._measured.values())

    def start_over(self) -> None:
        """Forgets the past after the clock of the stamps was set back (a bag plays again), and begins a new epoch, because the
        filter refuses stamps before the last one within an epoch. The instruction stays."""
        with self._lock:
            self.epoch = secrets.randbits(63) | 1
            self._sequence, self._last_begin = 0, -math.inf
            self._pacing.start_over()
            self._seeds = [(-math.inf, self._seeds[-1][1])]      # its beginning was a time of the old clock
            self._measured.update({name: PoseHistory(name) for name in self._measured})
            self.commands.clear()

    def report(self, message: str) -> None:
        """Reports in the heartbeat why no observation can be made (`camera wrist: no frame for 0.4 s`)."""
        with self._lock:
            self._progress = self._monotonic()
            self._enter(PolicyState.WAITING, self._progress, message)

    def begin(self, images: Mapping[str, np.ndarray], stamp_ns: int, camera_spread: float = 0.0) -> Inference:
        """Fixes the observation of the next inference.

        Args:
            images: View -> (h, w, 3) uint8 RGB.
            stamp_ns: Stamp of the oldest image, ns.
            camera_spread: Newest minus oldest image, s.

        Returns:
            The observation and what its proposal needs.

        Raises:
            ObservationError: No instruction; a view missing; images too old or too far apart; no arm state near them.
        """
        with self._lock:
            now, stamp = self._monotonic(), stamp_ns * 1e-9
            self._progress = now
            if not self._instruction:
                raise ObservationError("there is no instruction yet; call set_instruction")
            self._check_images(images, stamp, camera_spread)
            measured = [self._measured[name].at(stamp, self.config.max_state_gap_s) for name in self.convention.arms]
            commanded = self.commands.at(stamp)
            bases = measured if self.convention.delta_base == "measured" else [
                there or here for there, here in zip(commanded, measured)]
            observation = Observation(images=images, instruction=self._instruction, stamp_ns=int(stamp_ns),
                                      state=state_input(self.convention, measured, commanded))
            self._last_begin = now
            self._enter(PolicyState.INFERRING, now, "")
            # An observation from before a re-seed belongs to the seed before: its proposal is refused.
            seed = next((number for since, number in reversed(self._seeds) if since <= stamp), self._seeds[0][1])
            return Inference(observation, self._instruction_sequence, stamp, float(camera_spread),
                             tuple((pose, held) for pose, _, held in bases), self.epoch, seed)

    def predict(self, inference: Inference) -> Prediction:
        """Runs the model without the lock. Errors of the model pass through."""
        return self.policy.predict(inference.observation, mode=self.config.inference_mode, seed=self.config.seed)

    def finish(self, inference: Inference, prediction: Prediction) -> Optional[Proposal]:
        """Publishes the proposal, unless the instruction or the epoch has changed since `begin`.

        Returns:
            The proposal; None if none was published.
        """
        with self._lock:
            now = self._monotonic()
            self._progress = now
            self._enter(PolicyState.WAITING, now, "")
            if inference.instruction_sequence != self._instruction_sequence or inference.epoch != self.epoch:
                self.discarded += 1
                return None
            self._sequence += 1
            proposal = make_proposal(self.config, self.policy, inference, prediction, self.epoch, self._sequence,
                                     max(self._clock() - inference.stamp, 0.0))
            self._pacing.sent(self._sequence, now, self._clock(), proposal.chunk, now - self._last_begin)
            self.commands.proposed(self.epoch, self._sequence, ((target.name, target.gripper) for target in proposal.targets),
                                   proposal.action_period)
            self._publish(proposal)
            return proposal

    def step(self, images: Mapping[str, np.ndarray], stamp_ns: int, camera_spread: float = 0.0) -> Optional[Proposal]:
        """`begin`, `predict` and `finish` in one."""
        inference = self.begin(images, stamp_ns, camera_spread)
        return self.finish(inference, self.predict(inference))

    # State -------------------------------------------------------------------------------------------------------

    @property
    def instruction(self) -> str:
        return self._instruction

    @property
    def instruction_sequence(self) -> int:
        return self._instruction_sequence

    @property
    def last_sequence(self) -> int:
        return self._sequence

    def heartbeat(self) -> Heartbeat:
        """Returns the present liveness of the inference loop: FAULT after `inference_timeout_s` without progress."""
        with self._lock:
            return self._heartbeat()

    def send_heartbeat(self) -> None:
        """Publishes `heartbeat()` in order with the proposals."""
        with self._lock:
            self._publish_heartbeat(self._heartbeat())

    # Internals, all under the lock -------------------------------------------------------------------------------

    def _waiting_for(self, now: float) -> str:
        if not self._instruction:
            return "no instruction yet; call set_instruction"
        if now - self._last_begin < 1.0 / self.config.prediction_rate_hz - 1e-9:
            return "waiting for the next period"
        return self._pacing.waiting(now)

    def _check_images(self, images: Mapping[str, np.ndarray], stamp: float, spread: float) -> None:
        missing = [camera.view for camera in self.config.cameras if camera.view not in images]
        if missing:
            raise ObservationError(f"no image from camera {', '.join(missing)}; check its topic")
        for camera in self.config.cameras:
            camera.check_size(*images[camera.view].shape[:2])
        age = self._clock() - stamp
        if age > self.config.max_observation_age_s:
            raise ObservationError(f"the oldest image is {age:.2f} s old (limit {self.config.max_observation_age_s} s); "
                                   "check the cameras' rates and clocks")
        if spread > self.config.max_camera_spread_s:
            raise ObservationError(f"the images are {spread:.3f} s apart (limit {self.config.max_camera_spread_s} s); "
                                   "synchronise the cameras")

    def _heartbeat(self) -> Heartbeat:
        now = self._monotonic()
        state, since, message = self._state, self._state_since, self._message
        silent = now - self._progress
        if silent > self.config.inference_timeout_s:
            state, since = PolicyState.FAULT, self._progress
            message = f"the inference loop made no progress for {silent:.1f} s"
        lost = self.policy.link_problem() if isinstance(self.policy, HasLink) else ""
        if lost:
            state, message = PolicyState.FAULT, f"the remote policy: {lost}"
        return Heartbeat(epoch=self.epoch, last_sequence=self._sequence,
                         instruction_sequence=self._instruction_sequence, state=state, in_state=now - since,
                         message=message)

    def _enter(self, state: PolicyState, now: float, message: str) -> None:
        if state is not self._state:
            self._state, self._state_since = state, now
        self._message = message
