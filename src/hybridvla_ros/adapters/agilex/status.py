"""What an AgileX arm's status means for us. Field meanings: piper_sdk, arm_feedback_status.py."""
from __future__ import annotations

from typing import Protocol


class PiperStatus(Protocol):
    """The fields that are read of a `piper_msgs/PiperStatusMsg`, besides `communication_status_joint_1` to `_6`."""

    ctrl_mode: int
    arm_status: int


CAN_CONTROL, STANDBY = 1, 0
MODES = {2: "in teach mode", 3: "under Ethernet control", 4: "under wifi control", 5: "under remote control",
         6: "in linkage teaching, as a leader arm", 7: "playing an offline trajectory"}
FAULTS = {1: "emergency stop", 2: "no joint solution for its target", 3: "singularity", 4: "target beyond a joint limit",
          5: "a joint does not communicate", 6: "a brake is not released: the arm is not enabled", 7: "collision",
          8: "overspeed while taught", 9: "a joint reports a fault", 10: "a fault", 11: "recording a demonstration",
          12: "playing a demonstration", 13: "a demonstration is paused", 14: "the main controller is too hot",
          15: "a resistor is too hot"}
ADVICE = {1: "release it, then reset the arm", 6: "call /hybridvla/robot/enable",
          4: "check the units of its commands", 2: "check the units of its commands"}


#: The driver switches an arm to CAN control with every command; before the first command an enabled arm is on standby.
DISABLED = "the arm went to standby while it was commanded: it has been disabled; call /hybridvla/robot/enable"


def problem(status: PiperStatus) -> str:
    """Says why the arm does not take commands, or an empty string. status: piper_msgs/PiperStatusMsg."""
    if status.arm_status:
        text = FAULTS.get(status.arm_status, f"status {status.arm_status}")
        return f"the arm reports: {text}; {ADVICE.get(status.arm_status, 'clear it at the arm')}"
    silent = [joint for joint in range(1, 7) if getattr(status, f"communication_status_joint_{joint}")]
    if silent:
        return f"joint {silent[0]} does not communicate; check its cable and power"
    if status.ctrl_mode in MODES:
        return f"the arm is {MODES[status.ctrl_mode]}; unplug the leader arm or reset this one"
    if status.ctrl_mode not in (STANDBY, CAN_CONTROL):
        return f"the arm is in control mode {status.ctrl_mode}; reset it"
    return ""
