"""Counters and sentences of the filter's status."""
from __future__ import annotations

from typing import Dict

from hybridvla_core.safety.status import Reason, State

SENTENCES = {
    Reason.PROPOSAL_STALE: "no valid proposal; waiting for the policy",
    Reason.HEARTBEAT_LOST: "the policy's heartbeat is lost; check policy_node",
    Reason.PROPOSAL_INVALID: "the last proposal was no motion; check the policy's output",
    Reason.PROPOSAL_ORDER: "the last proposal was out of order; check for a second policy or a replay",
    Reason.SECOND_PUBLISHER: "a second publisher sends proposals; stop one of them",
    Reason.JOINT_STATE: "joint states are missing or unusable; check the driver",
    Reason.ROBOT_MODE: "the robot does not accept commands; recover it, then call resume",
    Reason.CLOCK_JUMP: "the clock jumped or the filter was paused; waiting for a new proposal",
    Reason.OPERATOR: "stopped by the operator; call resume to go on",
    Reason.DEADMAN: "the deadman is released or silent; press it to go on",
    Reason.OUTSIDE_AT_START: "an arm is outside a limit; call reenter",
    Reason.SOLVER: "no joint step was found; the arms brake",
    Reason.LAST_CHECK: "the last check refused a command; the arms hold",
    Reason.LEASH: "an arm does not follow its command; free it or lower the target",
    Reason.MEASURED_LIMIT: "a measured value is outside its limit; the arms hold",
    Reason.COLLISION: "the motion would bring links together; the arms keep their distance",
    Reason.SINGULARITY: "the motion leads into a singularity; it is slowed",
    Reason.OTHER_ARM: "the other arm holds this one",
    Reason.GRIPPER: "the gripper did not finish its command; check the gripper",
    Reason.CONTROLLER: "the controller behind the filter changed; re-activate",
    Reason.CONFIGURATION: "a run-time parameter was refused",
    Reason.TICK_OVERRUN: "ticks come late; check the computer's load",
    Reason.TCP_MISMATCH: "the driver's tool pose disagrees with ours; check the tool in config/robots",
}

HEADINGS = {
    State.INACTIVE: "inactive; call activate to move",
    State.ACTIVE: "moving on the policy's word",
    State.HOLDING: "holding",
    State.STOPPED: "stopped",
    State.RECOVERING: "leading the arms back inside their limits",
}


def sentence(state: State, reasons: Reason, detail: str) -> str:
    """What, where, what to do: one sentence. `detail` replaces the stock sentence of the reasons."""
    stock = [text for flag, text in SENTENCES.items() if reasons & flag]
    text = detail or (stock[0] if stock else "")
    return f"{HEADINGS[state]}: {text}" if text else HEADINGS[state]


class Counters:
    """Named counts since start."""

    def __init__(self) -> None:
        self._values: Dict[str, int] = dict.fromkeys((
            "accepted", "holds", "stops", "reseeds", "reposes", "overruns", "target_violations", "measured_violations"), 0)

    def add(self, name: str, amount: int = 1) -> None:
        self._values[name] = self._values.get(name, 0) + amount

    def of(self, name: str) -> int:
        return self._values.get(name, 0)

    def snapshot(self) -> Dict[str, int]:
        return dict(self._values)


def flag_names(reasons: Reason) -> str:
    """PROPOSAL_STALE|DEADMAN"""
    return "|".join(flag.name for flag in Reason if flag and reasons & flag)
