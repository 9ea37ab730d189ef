"""Checks that find recorded episodes unusable or doubtful."""
from __future__ import annotations

import itertools
from typing import Dict, List, Mapping, Sequence

import numpy as np
from PIL import Image

from hybridvla_cli.dataset_parts.labels import LONGEST_MEAN, too_slow
from hybridvla_core.errors import DataError
from hybridvla_core.evaluation.replay.track import Track
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.transforms.conventions import ActionConvention
from hybridvla_ros.replay.scan import Scanned

LEAST_MOTION_M, LEAST_TURN = 0.01, 0.02
OUTSIDE_RAD, OUTSIDE_SHARE = 0.3, 0.01
LOST_SHARE = 0.02
THUMB = 8               # size of a view's signature, px per side
SWAPPED = 0.6           # another order of the views fits better by this factor


def refuse_unfit(found: Scanned, robot: RobotConfig) -> None:
    """Raises DataError for states in other units or with NaN, a gripper that is never read, or arms that never move."""
    arms = {arm.name: arm for arm in robot.arms}
    for track in found.recording.tracks:
        limits = arms[track.name].joint_limits
        low, high = np.asarray(limits.lower_rad), np.asarray(limits.upper_rad)
        outside = (track.joints < low - OUTSIDE_RAD) | (track.joints > high + OUTSIDE_RAD)
        if outside.any(axis=1).mean() > OUTSIDE_SHARE:
            joint = int(outside.mean(axis=0).argmax())
            worst = float(track.joints[:, joint][np.abs(track.joints[:, joint]).argmax()])
            raise DataError(f"joint {joint + 1} of arm {track.name} reads {worst:.3g}, its limits are {low[joint]:.3g} to "
                            f"{high[joint]:.3g} rad; the states are in other units (degrees?) or of another robot")
        stream = found.streams.get(f"joints {track.name}")
        lost = stream.count - len(track) - track.dropped if stream is not None else 0
        if stream is not None and lost > LOST_SHARE * max(stream.count, 1):
            raise DataError(f"{lost} of {stream.count} joint states of arm {track.name} cannot be used (NaN, or another number "
                            "of joints)")
        if not track.gripper_known:
            doubts = [str(event["text"]) for event in (stream.events if stream is not None else ()) if "gripper" in event["text"]]
            raise DataError(f"the gripper of arm {track.name} is never read, so no row could say whether it is open; " + (
                doubts[0] if doubts else "record its joint states, or name its joints in a topic map (finger_names)"))
    if all(_still(track) for track in found.recording.tracks):
        raise DataError("nothing moves in it")


def refuse_slow(found: Scanned, convention: ActionConvention) -> None:
    """Raises DataError for a camera that is slower than the wanted rate of the actions."""
    period = convention.action_period_s
    for name, stream in found.streams.items():
        if name.startswith("camera ") and 0.0 < LONGEST_MEAN * period < stream.usual_interval:
            raise DataError(too_slow(f"the images of {name}", stream.usual_interval, period))


def _still(track: Track) -> bool:
    moved = np.ptp(track.positions, axis=0).max() if len(track) else 0.0
    turned = np.ptp(track.quaternions, axis=0).max() if len(track) else 0.0
    return bool(moved < LEAST_MOTION_M and turned < LEAST_TURN and not track.grips)


def doubts(found: Scanned, convention: ActionConvention) -> List[str]:
    """Returns what a person should look at; the episode is used all the same."""
    lack = found.uncommanded(convention)
    said = [f"the gripper of arm {track.name} never moves" for track in found.recording.tracks if not track.grips]
    for stream in found.streams.values():
        said += [str(event["text"]) for event in stream.events]
    return said + ([lack] if lack else []) + [note for opened in found.files for note in opened.notes]


def signature(images: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Returns view -> (THUMB, THUMB, 3) means, by which the views of two recordings are told apart."""
    return {view: np.asarray(Image.fromarray(image).resize((THUMB, THUMB), Image.Resampling.BOX), dtype=np.float64)
            for view, image in images.items()}


def swapped_views(signatures: Sequence[Mapping[str, np.ndarray]], reference: Mapping[str, np.ndarray]) -> Dict[int, str]:
    """Finds recordings whose views fit the others (or a reference) much better in another order: number -> sentence."""
    if not signatures or len(signatures[0]) < 2 or (len(signatures) < 3 and not reference):
        return {}
    views = list(signatures[0])
    usual = dict(reference) or {view: np.median([each[view] for each in signatures], axis=0) for view in views}
    found: Dict[int, str] = {}
    for number, mine in enumerate(signatures):
        cost = {order: sum(float(np.abs(mine[seen] - usual[view]).mean()) for view, seen in zip(views, order))
                for order in itertools.permutations(views)}
        best = min(cost, key=lambda order: cost[order])
        if best != tuple(views) and cost[best] < SWAPPED * cost[tuple(views)]:
            pairs = ", ".join(f"{view} shows what {seen} should" for seen, view in zip(views, best) if seen != view)
            found[number] = f"the cameras are swapped: {pairs}; the order must be that of the statistics"
    return found
