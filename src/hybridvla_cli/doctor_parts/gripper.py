"""Which way is open? Makes a first, small move of the gripper, watched by a person; the process that moves is `move_gripper`."""
from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from hybridvla_cli.doctor_parts.findings import FAILURE, OK, WARNING, Finding
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.graph_names import HEARTBEAT, PROPOSAL

FILTER = "/safety_filter_node"
#: Smallest move, and least distance of a target from the middle, where open and closed read the same; shares of the stroke.
STEP, OFF_MIDDLE = 0.15, 0.15
#: Tolerance within which an opening is the intended one, and movement below which a gripper has not moved; shares of the stroke.
SAME, STILL = 0.07, 0.02
POLICY = (PROPOSAL, HEARTBEAT)

#: Asks a person something; returns what was typed.
Ask = Callable[[str], str]


@dataclass(frozen=True)
class Move:
    """Command to one arm's gripper and what its driver reported; openings from 0 (closed) to 1 (open), NaN: not read.

    Attributes:
        arm: Name of the arm.
        before: Opening before the move.
        asked: Commanded opening.
        after: Opening at rest after the move; NaN before the move.
    """

    arm: str
    before: float
    asked: float
    after: float = math.nan

    @property
    def opens(self) -> bool:
        """Whether it was commanded to open."""
        return self.asked > self.before


def way(arm: ArmConfig) -> str:
    """Returns how an arm's gripper is commanded: by its own `action` or `topic`, or through the `filter` with the joints."""
    return "action" if arm.topics.get("gripper_move") else "topic" if arm.topics.get("gripper_command") else "filter"


def target(opening: float) -> float:
    """Returns the opening to command: `STEP` further open if that reveals the sense, else `STEP` further closed."""
    wider = opening + STEP
    return wider if wider <= 1.0 and abs(wider - 0.5) >= OFF_MIDDLE else opening - STEP


def refusal(publishers: Mapping[str, Sequence[str]], state: str, dry_run: bool, robot: RobotConfig) -> Tuple[str, str]:
    """Returns why nothing may be moved now, and the cure.

    Args:
        publishers: Topic -> publishing nodes, without this node.
        state: State of the filter; empty if none runs.
        dry_run: Whether the filter commands nothing.
        robot: Configuration of the robot whose grippers are to move.

    Returns:
        A sentence and its cure; two empty strings if the gripper may move.
    """
    through = any(way(arm) == "filter" for arm in robot.arms)
    if state not in ("", "INACTIVE"):
        return (f"the filter is {state}: the gripper belongs to the policy",
                'rosservice call /hybridvla/safety/activate "data: false"')
    if dry_run:
        return "the filter makes a dry run, in which nothing is commanded", "launch with armed:=true speed_scale:=0.1"
    for arm in robot.arms:
        roles = ("command", "pose_command", "trajectory", "gripper_command", "gripper_move", "gripper_grasp")
        for topic in (arm.topics[role] for role in roles if arm.topics.get(role)):
            for name in (topic, f"{topic}/goal"):
                others = [node for node in publishers.get(name, ()) if node != FILTER]
                if others:
                    return f"{', '.join(others)} commands arm {arm.name} on {name} as well", f"rosnode kill {others[0]}"
    if through and not state:
        return "no safety filter runs, and this gripper is commanded together with the arm's joints", \
            "launch with policy:=false armed:=true speed_scale:=0.1"
    policies = [node for topic in POLICY for node in publishers.get(topic, ())]
    if through and policies:
        return (f"{policies[0]} is the filter's policy, and this gripper moves through the filter",
                "launch with policy:=false armed:=true speed_scale:=0.1")
    return "", ""


def sense_findings(moves: Sequence[Move], robot: RobotConfig, file: Path, seen: Mapping[str, Optional[bool]]
                   ) -> Iterator[Finding]:
    """Yields what the moves say about each gripper.

    Args:
        moves: One move for each arm.
        robot: Configuration of the robot.
        file: File of that configuration.
        seen: Arm -> whether a person saw the gripper move as commanded; None: nobody looked.

    Yields:
        One finding per arm.
    """
    arms: Dict[str, ArmConfig] = {arm.name: arm for arm in robot.arms}
    for move in moves:
        yield _finding(move, arms[move.arm], file, seen.get(move.arm))


def _finding(move: Move, arm: ArmConfig, file: Path, seen: Optional[bool]) -> Finding:
    said = (f"arm {move.arm}: told to {'open' if move.opens else 'close'} from {move.before:.2f} to {move.asked:.2f} (0 closed, "
            "1 open)")
    closed, opened = arm.gripper.readings or (0.0, arm.gripper.max_width_m)
    exchange = f"exchange closed and open in {file}, arm {move.arm}: gripper.readings: [{opened:g}, {closed:g}]"
    if math.isnan(move.before) or math.isnan(move.after):
        return Finding("gripper", FAILURE, f"arm {move.arm}: its opening is not read: a grasp would be made blindly",
                       f"set topics.finger_joints and gripper.readings in {file} to what the driver reports")
    if abs(move.after - move.before) < STILL:
        return Finding("gripper", FAILURE, f"{said}, and it did not move", "clear what blocks it; home the gripper if it has not "
                       "been since power-up, then ask again")
    if abs(move.after - (1.0 - move.asked)) < SAME:
        return Finding("gripper", FAILURE, f"{said}, and it is reported at {move.after:.2f}: its sense is the other way round, "
                       "so an open gripper counts as closed", exchange)
    if abs(move.after - move.asked) >= SAME:
        return Finding("gripper", FAILURE, f"{said}, and it is reported at {move.after:.2f}: it stopped on its way, or reads in "
                       "other units", "look whether something is between the fingers; else correct gripper.max_width_m or "
                       f"gripper.readings in {file}")
    if seen is False:
        own = way(arm) != "filter"
        return Finding("gripper", FAILURE, f"{said} and reported so, and it was seen to go the other way: closed and open are "
                       "exchanged, and the policy would let go where it should grasp",
                       "correct the sense in the gripper's own driver: it reports and takes the same wrong one" if own
                       else exchange)
    if seen is None:
        return Finding("gripper", WARNING, f"{said}, and reported at {move.after:.2f}; nobody looked whether it really did",
                       "ask again without --yes, and look at the fingers")
    return Finding("gripper", OK, f"{said}, reported at {move.after:.2f} and seen")


def ask_first(plan: Sequence[Move], robot: RobotConfig, ask: Ask) -> bool:
    """Says what will move and waits for a person's yes."""
    widths = {arm.name: 1e3 * arm.gripper.max_width_m for arm in robot.arms}
    told = "; ".join(f"arm {move.arm} {'opens' if move.opens else 'closes'} by "
                     f"{abs(move.asked - move.before) * widths[move.arm]:.0f} mm" for move in plan)
    held = "" if all(way(arm) != "filter" for arm in robot.arms) else (
        " The filter becomes active for it and holds the arms where they are: keep the dead-man switch pressed, and a hand at "
        "the emergency stop.")
    return ask(f"The gripper moves: {told}; where its sense is configured wrong, by its whole stroke. What it holds may fall. "
               f"Take hands and things from the fingers.{held} Type yes to move it: ").strip().lower() == "yes"


def ask_seen(moves: Sequence[Move], ask: Ask) -> Dict[str, Optional[bool]]:
    """Asks what a person saw; an answer that is neither yes nor no counts as not having looked."""
    found: Dict[str, Optional[bool]] = {}
    for move in moves:
        answer = ask(f"Did the gripper of arm {move.arm} {'OPEN' if move.opens else 'CLOSE'} a little? (yes or no): ")
        found[move.arm] = {"yes": True, "y": True, "no": False, "n": False}.get(answer.strip().lower())
    return found
