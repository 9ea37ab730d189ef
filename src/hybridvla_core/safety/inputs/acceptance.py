"""Acceptance of proposals and heartbeats: one publisher, one epoch, numbers that grow, values that are poses.

A newer epoch is adopted only at rest, another publisher only at rest and once the present one is silent. While two
publishers send, nothing moves: nobody can know which of them is meant.
"""
from __future__ import annotations

import math
from typing import Optional, Set, Tuple

import numpy as np

from hybridvla_core.contracts import Heartbeat, Kind, PolicyState, Pose, Proposal
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.inputs.transit import Transit
from hybridvla_core.safety.status import Reason

UNIT_TOLERANCE = 1e-2      # tolerance on a quaternion's length; within it, the quaternion is normalised
FARTHEST_M = 100.0         # a coordinate beyond this is a mistake, not a target
SECOND_S = 0.3             # a message of a second publisher counts for this long ...
AGAIN_S = 3.0              # ... or for this long if another comes after a pause of up to this: one stop, not many
SHORTEST_PERIOD_S = 1e-3   # shortest period of an action
SHOWN_S = 0.5              # a refusal is shown in the status for this long

Verdict = Tuple[Reason, str]
ACCEPTED: Verdict = (Reason.NONE, "")


class ProposalGate:
    """Accepts or refuses messages; remembers the locked publisher and epoch, and the highest numbers seen.

    `late`: how much later than usual the last action with a plausible age came, by its stamp and age, s.
    """

    def __init__(self, config: RobotConfig, watch_delay: bool = True) -> None:
        """Sets up the gate. watch_delay: stamps run with our own clock, so that a delayed proposal is noticed."""
        self._config = config
        self._transit, self.late = Transit(watch_delay), 0.0
        self._names = tuple(arm.name for arm in config.arms)
        self._frames = {arm.name: arm.base_frame for arm in config.arms}
        self._retired: Set[int] = set()
        self.publisher: Optional[str] = None
        self.epoch: Optional[int] = None
        self.sequence = 0
        self.instruction_sequence = 0
        self.policy_state = PolicyState.WAITING
        self.policy_message = ""
        self.refusal: Tuple[Reason, str, float] = (Reason.NONE, "", -math.inf)
        self._stamp = -math.inf
        self._stamp_seen = (-math.inf, 0.0)      # when the present stamp first arrived, and its age then
        self._heard: Optional[float] = None
        self._seed, self._seeded_at = 0, -math.inf
        self._second: Tuple[str, float, float] = ("", -math.inf, SECOND_S)      # who, when, and for how long it counts

    def second_publisher(self, now: float) -> str:
        """Returns who sends besides the locked publisher, or an empty string."""
        text, at, lasts = self._second
        return text if 0.0 <= now - at <= lasts else ""

    def shown(self, now: float) -> Tuple[Reason, str]:
        """Returns the last refusal while it is recent."""
        reason, text, at = self.refusal
        return (reason, text) if 0.0 <= now - at <= SHOWN_S else (Reason.NONE, "")

    def forget_stamp(self) -> None:
        """Lets stamps begin anew after a clock was set. Sequence numbers still keep the order."""
        self._stamp = -math.inf
        self._transit.forget()

    def seeded(self, seed: int, at: float) -> None:
        """Notes that the motion began anew: proposals for the previous seed are refused from now on."""
        self._seed, self._seeded_at = seed, at

    def heartbeat_lost(self, now: float) -> bool:
        return self._heard is None or now - self._heard > self._config.watchdogs.heartbeat_s

    def on_heartbeat(self, beat: Heartbeat, now: float, publisher: str, at_rest: bool) -> Verdict:
        """Takes a heartbeat, which counts only from the locked publisher and epoch."""
        verdict = self._belongs(beat.epoch, now, publisher, at_rest)
        if verdict is ACCEPTED:
            self._heard = now
            self.policy_state, self.policy_message = beat.state, beat.message
            self.instruction_sequence = max(self.instruction_sequence, beat.instruction_sequence)
        return verdict

    def on_proposal(self, proposal: Proposal, now: float, publisher: str, at_rest: bool) -> Verdict:
        """Returns Reason.NONE if the proposal may be executed, otherwise the flag and a sentence."""
        verdict = self._judge(proposal, now, publisher, at_rest)
        if verdict is not ACCEPTED:
            self.refuse(*verdict, now)
        return verdict

    def on_unreadable(self, text: str, now: float, publisher: str, at_rest: bool) -> Verdict:
        """Refuses a message that came in place of a proposal and cannot be read, like an ill-formed proposal."""
        verdict = self._stranger(now, publisher, at_rest)
        if verdict is ACCEPTED:
            verdict = Reason.PROPOSAL_INVALID, text
        self.refuse(*verdict, now)
        return verdict

    def refuse(self, reason: Reason, text: str, now: float) -> None:
        """Notes that a proposal is not carried out; the status says so for a while."""
        self.refusal = (reason, text, now)

    def _judge(self, proposal: Proposal, now: float, publisher: str, at_rest: bool) -> Verdict:
        verdict = self._stranger(now, publisher, at_rest)
        if verdict is not ACCEPTED:
            return verdict
        reason = self._well_formed(proposal)
        if reason:
            return Reason.PROPOSAL_INVALID, reason
        verdict = self._belongs(proposal.epoch, now, publisher, at_rest)
        if verdict is not ACCEPTED:
            return verdict
        if proposal.sequence <= self.sequence:
            return Reason.PROPOSAL_ORDER, f"sequence {proposal.sequence} is not above {self.sequence}"
        if proposal.instruction_sequence < self.instruction_sequence:
            return Reason.PROPOSAL_ORDER, (f"instruction {proposal.instruction_sequence} was replaced by "
                                           f"{self.instruction_sequence}")
        if proposal.kind == Kind.ACTION:     # a HOLD has no observation: the next action's observation may be older than the HOLD
            verdict = self._observed(proposal, now)
            if verdict is not ACCEPTED:
                return verdict
        self.sequence, self.instruction_sequence = proposal.sequence, proposal.instruction_sequence
        return ACCEPTED

    def _observed(self, proposal: Proposal, now: float) -> Verdict:
        """Judges the time of an action's observation, and remembers its stamp if it may be used."""
        # The sender says how old the observation was when it published. A proposal that comes later than usual waited on its way.
        bound, said = self._config.proposals.max_observation_age_s, proposal.observation_age
        self.late = self._transit.late(proposal.stamp + said, now) if said <= bound else 0.0
        if proposal.stamp < self._stamp:
            return Reason.PROPOSAL_ORDER, (f"stamp {proposal.stamp:.6f} lies before the last, {self._stamp:.6f}; if its "
                                           "clock was set back, restart the policy")
        age = said + self.late
        if proposal.stamp == self._stamp:       # a camera that stands still: the age is our own, not the sender's
            age = max(age, self._stamp_seen[1] + now - self._stamp_seen[0])
        if age > bound:
            waited = (f": it came {self.late:.2f} s later than others did, by its stamp and age; check the network, and restart "
                      "the policy if its clock was set back") if age - self.late <= bound else ""
            return Reason.PROPOSAL_STALE, f"its observation was {age:.2f} s old{waited}"
        if proposal.seed not in (0, self._seed):
            return Reason.PROPOSAL_STALE, (f"it was made under seed {proposal.seed}, and the arms were seeded anew since "
                                           f"({self._seed})")
        if not proposal.seed and now - age < self._seeded_at:
            return Reason.PROPOSAL_STALE, "its observation is from before the arms were seeded anew"
        if proposal.stamp != self._stamp:
            self._stamp_seen = (now, age)
        self._stamp = proposal.stamp
        return ACCEPTED

    def _stranger(self, now: float, publisher: str, at_rest: bool) -> Verdict:
        if self.publisher is None or publisher == self.publisher or (self.heartbeat_lost(now) and at_rest):
            return ACCEPTED
        text = f"{publisher!r} speaks while {self.publisher!r} is in charge"
        again = SECOND_S < now - self._second[1] <= AGAIN_S or (self._second[2] == AGAIN_S and self.second_publisher(now))
        self._second = (text, now, AGAIN_S if again else SECOND_S)
        return Reason.SECOND_PUBLISHER, text

    def _belongs(self, epoch: int, now: float, publisher: str, at_rest: bool) -> Verdict:
        if epoch in self._retired:
            return Reason.PROPOSAL_ORDER, f"epoch {epoch} has been replaced"
        verdict = self._stranger(now, publisher, at_rest)
        if verdict is not ACCEPTED:
            return verdict
        if epoch == self.epoch and publisher == self.publisher:
            return ACCEPTED
        if not at_rest:
            return Reason.PROPOSAL_ORDER, f"epoch {epoch} is new and is accepted only at rest"
        if self.epoch is not None and epoch != self.epoch:
            self._retired.add(self.epoch)
            self._heard = None
        if epoch != self.epoch:
            self.sequence, self.instruction_sequence = 0, 0
            self.forget_stamp()
        self.epoch, self.publisher = epoch, publisher
        return ACCEPTED

    def _well_formed(self, proposal: Proposal) -> str:
        bounds = self._config.proposals
        if proposal.epoch <= 0 or proposal.sequence <= 0:
            return f"epoch is {proposal.epoch} and sequence {proposal.sequence}; both start at 1"
        holds = proposal.kind == Kind.HOLD      # a HOLD has no observation, whatever it says
        for field in ("valid_for", "action_period") if holds else ("stamp", "valid_for", "action_period", "observation_age"):
            if not math.isfinite(getattr(proposal, field)):
                return f"{field} is {getattr(proposal, field):g}, not a number of seconds"
        if not holds and proposal.observation_age < 0.0:
            return f"observation_age is {proposal.observation_age:.3g} s: the observation lies in the future"
        if not 0.0 < proposal.valid_for <= bounds.max_valid_for_s:
            return f"valid_for is {proposal.valid_for:.3g} s; between 0 and {bounds.max_valid_for_s:g} s is allowed"
        if holds:
            return ""
        if proposal.kind != Kind.ACTION:
            return f"kind {proposal.kind} is unknown"
        if proposal.action_period and not SHORTEST_PERIOD_S <= proposal.action_period <= 10.0:
            return f"action_period is {proposal.action_period:.3g} s; 0, or {SHORTEST_PERIOD_S:g} to 10 s is allowed"
        if not 1 <= proposal.chunk <= bounds.max_chunk:
            return f"chunk is {proposal.chunk}; 1 to {bounds.max_chunk} is allowed"
        names = tuple(target.name for target in proposal.targets)
        if names != self._names * proposal.chunk:
            return f"targets are for {list(names)[:4]}; {list(self._names)} are needed, {proposal.chunk} times"
        for target in proposal.targets:
            if target.frame.lstrip("/") != self._frames[target.name]:
                return f"{target.name}: frame {target.frame!r} is not {self._frames[target.name]!r}"
            reason = not_a_pose(target.target)
            if reason:
                return f"{target.name}: {reason}"
            if not -0.5 <= target.gripper <= 1.5:
                return f"{target.name}: gripper {target.gripper} is not an opening between 0 and 1"
        return ""


def not_a_pose(pose: Pose) -> str:
    """Returns why this is no pose, or an empty string."""
    position, quaternion = np.asarray(pose.position), np.asarray(pose.quaternion)
    if position.shape != (3,) or quaternion.shape != (4,):
        return "a pose needs three numbers and a quaternion of four"
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
        return "a pose is not finite"
    if np.abs(position).max() > FARTHEST_M:
        return f"position {position.tolist()} is out of this world"
    if np.abs(quaternion).max() > 2.0 or abs(math.sqrt(float(quaternion @ quaternion)) - 1.0) > UNIT_TOLERANCE:
        return f"quaternion {quaternion.tolist()} is not of unit length"
    return ""
