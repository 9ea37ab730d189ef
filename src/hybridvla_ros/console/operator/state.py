"""What an operator needs to know, gathered from the topics; also the lines of `hybridvla watch`."""
from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Tuple

from hybridvla.msg import ActionProposal, EpisodeEvent, PolicyHeartbeat, SafetyStatus
from hybridvla_core.contracts import Pose
from hybridvla_core.safety import status as safety
from hybridvla_ros.messages.conversions import status_contract

POLICY = {getattr(PolicyHeartbeat, name): name for name in ("WAITING", "INFERRING", "FAULT")}
MODES = {getattr(ActionProposal, name): name.lower() for name in ("ENSEMBLE", "DIFFUSION", "AUTOREGRESSIVE")}
EVENTS = ("start", "success", "failure", "discard", "aborted")
#: Beginnings of the names of counters that say that the filter did something else than it was asked.
INTERVENTIONS = ("limited/", "rejected/", "holds", "reseeds")
REMEMBERED, JOINED_S = 12, 1.0
#: Silence after which the last message no longer counts as present, s.
SILENCE_S = 1.0


def finite(value: float, digits: int) -> Optional[float]:
    """Rounds a number for JSON; None where it is not finite, because JSON knows no NaN."""
    return round(float(value), digits) if math.isfinite(value) else None


class ConsoleState:
    """Everything that the page shows and the lines tell. The callbacks may come from any thread.

    say: called with one line for every change; never concurrently. intervened: likewise, with the name of an intervention.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None, clock: Callable[[], float] = time.monotonic,
                 intervened: Callable[[str], None] = lambda name: None) -> None:
        self._say, self._clock, self._intervened, self._lock = say, clock, intervened, threading.RLock()
        self._heard: Dict[str, float] = {}
        self._safety: Dict[str, Any] = {}
        self._policy: Dict[str, Any] = {}
        self._proposal: Dict[str, Any] = {}
        self._epoch = self._proposal_epoch = 0      # of the policy whose heartbeats come, and of the last proposal
        self._beat_at = self._instructed_at = -math.inf
        self._episode: Dict[str, Any] = {}
        self._instruction = ""
        self._counters: Dict[str, int] = {}
        self._interventions: Deque[Dict[str, Any]] = deque(maxlen=REMEMBERED)
        self._said: Dict[str, str] = {}

    def on_status(self, message: SafetyStatus) -> None:
        with self._lock:
            status = status_contract(message)
            state = status.state.name
            self._note("status")
            self._safety = {"state": state, "message": status.message, "dry_run": status.dry_run,
                            "speed_scale": finite(status.applied_scale, 3), "arms": [_arm(arm) for arm in status.arms],
                            "margins": _margins(status)}
            dry = " (dry run: nothing is commanded)" if status.dry_run else ""
            heading = f"{state.lower()}: "      # most sentences begin with the state again
            text = status.message[len(heading):] if status.message.startswith(heading) else status.message
            self._tell("robot", f"{state}{dry}: {text}")
            self._count(status.counters)

    def on_heartbeat(self, message: PolicyHeartbeat) -> None:
        with self._lock:
            state = "WARMING UP" if message.warming_up else POLICY.get(message.state, str(message.state))
            self._note("policy")
            self._see_epoch(message.epoch)
            self._policy = {"state": state, "message": message.message, "warming_up": message.warming_up}
            # Between two predictions the policy waits and infers many times a second: only trouble makes a line.
            trouble = message.state == PolicyHeartbeat.FAULT or message.warming_up
            self._tell("policy", f"{state}: {message.message}" if trouble else "well")

    def on_proposal(self, message: ActionProposal) -> None:
        with self._lock:
            self._note("proposal")
            self._proposal_epoch = message.epoch
            self._proposal = {
                "sequence": message.sequence, "mode": MODES.get(message.mode, str(message.mode)), "fused": message.fused,
                "confidence": finite(message.mean_confidence, 3), "path_distance_mm": finite(1e3 * message.path_distance, 1),
                "path_angle_deg": finite(math.degrees(message.path_angle), 1), "age_ms": finite(
                    1e3 * message.observation_age.to_sec(), 0)}

    def on_instruction(self, text: str) -> None:
        with self._lock:
            self._instruction, self._instructed_at = text, self._clock()
            self._tell("instruction", text)

    def on_event(self, message: EpisodeEvent) -> None:
        with self._lock:
            event = EVENTS[message.event] if message.event < len(EVENTS) else str(message.event)
            self._episode = {"number": message.number, "event": event}
            self._tell("episode", f"{message.number}: {event}")

    def look(self) -> None:
        """Says who has fallen silent; call it a few times a second."""
        with self._lock:
            for who, name in (("status", "robot"), ("policy", "policy")):
                if who in self._heard and self._silent(who):
                    self._tell(name, "silent: its node says nothing any more")

    def snapshot(self) -> Dict[str, Any]:
        """Returns the state for JSON, without NaN. Old values are marked as old, not shown as present."""
        with self._lock:
            return {"safety": {**self._safety, "silent": self._silent("status")},
                    "policy": {**self._policy, "silent": self._silent("policy")},
                    "proposal": self._aged_proposal(), "episode": dict(self._episode), "instruction": self._instruction,
                    "interventions": [{"text": entry["text"], "times": entry["times"],
                                       "ago_s": round(self._clock() - entry["at"], 1)}
                                      for entry in reversed(self._interventions)]}

    def _see_epoch(self, epoch: int) -> None:
        """Forgets what another policy was told and proposed. 0: a policy that still loads, or a sender that gives no epoch."""
        if not epoch:
            return
        if self._epoch and epoch != self._epoch:
            # The new policy's instruction may come before its first heartbeat, but never before the old policy's last.
            if self._instruction and self._instructed_at <= self._beat_at:
                self._instruction = ""
                self._tell("instruction", "none: another policy runs now")
            if self._proposal_epoch != epoch:
                self._proposal = {}
        self._epoch, self._beat_at = epoch, self._clock()

    def _aged_proposal(self) -> Dict[str, Any]:
        return {**self._proposal, "ago_s": round(self._clock() - self._heard["proposal"], 1)} if self._proposal else {}

    def _note(self, who: str) -> None:
        self._heard[who] = self._clock()

    def _silent(self, who: str) -> bool:
        return self._clock() - self._heard.get(who, -math.inf) > SILENCE_S

    def _tell(self, who: str, text: str) -> None:
        if self._said.get(who) != text:
            self._said[who] = text
            self._say(f"{who:<12} {text}")

    def _count(self, counters: Mapping[str, int]) -> None:
        before, self._counters = self._counters, dict(counters)
        if not before or any(counters.get(name, 0) < count for name, count in before.items()):
            return      # the first status, or a restarted filter
        now = self._clock()
        for name, count in sorted(counters.items()):
            more = count - before.get(name, 0)
            if more <= 0 or not name.startswith(INTERVENTIONS):
                continue
            same = [entry for entry in self._interventions if entry["text"] == name and now - entry["at"] < JOINED_S]
            if same:
                same[-1].update(at=now, times=same[-1]["times"] + more)
            else:
                self._interventions.append({"text": name, "times": more, "at": now})
                self._say(f"{'filter':<12} {name}")
                self._intervened(name)


def _arm(arm: safety.ArmSafety) -> Dict[str, Any]:
    def place(pose: Optional[Pose]) -> Optional[List[Optional[float]]]:
        return None if pose is None else [finite(value, 4) for value in pose.position]

    return {"name": arm.name, "target": place(arm.target), "measured": place(arm.measured), "asked": place(arm.asked),
            "mended": arm.mended, "error_mm": finite(1e3 * arm.position_error, 1), "push_n": finite(arm.push_n, 1),
            "at_target": arm.at_target}


def _margins(status: safety.SafetyStatus) -> Dict[str, List[Dict[str, Any]]]:
    """Returns the smallest margin of each unit, for the commanded and for the measured state."""
    found: Dict[Tuple[str, str], safety.LimitMargin] = {}
    for entry in status.margins:
        whose = "measured" if entry.name.startswith("measured/") else "commanded"
        key = (whose, entry.unit)
        if math.isfinite(entry.margin) and (key not in found or entry.margin < found[key].margin):
            found[key] = entry
    sides: Dict[str, List[Dict[str, Any]]] = {"commanded": [], "measured": []}
    for (whose, unit), entry in sorted(found.items(), key=lambda item: item[0]):
        sides[whose].append({"name": entry.name, "margin": finite(entry.margin, 4), "unit": unit, "active": entry.active})
    return sides
