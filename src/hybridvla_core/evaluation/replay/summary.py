"""Turns rows into numbers: errors by axis, phase and instruction, gains, calibration, paths, filter."""
from __future__ import annotations

import math
from collections import Counter
from typing import Any, Dict, List, Optional, Sequence, SupportsFloat

import numpy as np

from hybridvla_core.evaluation.reliability import of_tokens
from hybridvla_core.evaluation.replay.evaluator import by
from hybridvla_core.evaluation.replay.filtering import FilterTally
from hybridvla_core.evaluation.replay.rows import DECISION, Row, compared
from hybridvla_core.evaluation.replay.settings import ReplayConfig
from hybridvla_core.report.statistics import calibration, percentiles, quantiles, rate

AXES = "xyz"
FAR_M = 0.03         # a gain is computed from displacements above this
ENOUGH = 8           # fewer displacements give no gain


def summarise(rows: Sequence[Row], arms: Sequence[str], settings: ReplayConfig) -> Dict[str, Any]:
    """Returns everything about the predictions of one policy as plain data."""
    judged = compared(list(rows))
    return {
        "frames": len(rows), "errors": errors(judged, len(rows), arms, rows),
        "fused_share": rate(sum(row.fused for row in rows), len(rows)),
        "paths": paths(rows), "confidence": confidence(judged), **filtered(rows),
        "reproduction": reproduction(rows),
        "state_outside_share": rate(sum(row.state_outside for row in rows), len(rows)),
        "camera_spread_s": percentiles([row.spread for row in rows])}


def errors(judged: Sequence[Row], frames: int, arms: Sequence[str], rows: Sequence[Row]) -> Dict[str, Any]:
    result: Dict[str, Any] = {
        "compared": len(judged), "not_compared": dict(Counter(row.why for row in rows if row.why).most_common())}
    if not judged:
        return result
    result.update(_block(judged))
    error = np.array([row.error for row in judged])
    result["per_axis"] = {
        arm: {axis: {"median_abs_m": _round(np.median(np.abs(error[:, i, k]))), "bias_m": _round(np.median(error[:, i, k])),
                     "gain": gain(judged, i, k)} for k, axis in enumerate(AXES)} for i, arm in enumerate(arms)}
    result["by_phase"] = {name: _block(group) for name, group in by(judged, "phase").items()}
    result["by_instruction"] = {name: _block(group) for name, group in by(judged, "instruction").items()}
    decisions = [row for row in judged if row.kind == DECISION]
    result["decisions"] = _block(decisions) if decisions else {}
    return result


def _block(rows: Sequence[Row]) -> Dict[str, Any]:
    distances, angles = [row.distance for row in rows], [row.angle for row in rows]
    return {"frames": len(rows), **_middle_and_p90(distances, "m"), **_middle_and_p90(angles, "rad"),
            "gripper_agreement": rate(sum(bool(row.gripper_ok) for row in rows), len(rows))}


def gain(rows: Sequence[Row], arm: int, axis: int) -> Optional[float]:
    """Returns the median of predicted over recorded displacement from the base, where the recorded one is long enough."""
    ratios = []
    for row in rows:
        base = row.bases[arm].position[axis]
        assert row.truth is not None, "only compared rows come here"
        wanted = row.truth.arms[arm].pose.position[axis] - base
        if abs(wanted) > FAR_M:
            ratios.append((row.targets[arm].target.position[axis] - base) / wanted)
    return _round(np.median(ratios)) if len(ratios) >= ENOUGH else None


def paths(rows: Sequence[Row]) -> Dict[str, Any]:
    both = [row for row in rows if not math.isnan(row.path_distance)]
    if not both:
        return {}
    distances, angles = [row.path_distance for row in both], [row.path_angle for row in both]
    return {"frames": len(both), **_middle_and_p90(distances, "m"), **_middle_and_p90(angles, "rad")}


def confidence(judged: Sequence[Row]) -> Dict[str, Any]:
    """Compares mean confidence with error, and the tokens' confidences with how often they were right."""
    seen = [row for row in judged if not math.isnan(row.confidence)]
    if not seen:
        return {}
    result: Dict[str, Any] = {"mean": _round(np.mean([row.confidence for row in seen])),
              **calibration([row.confidence for row in seen], [row.distance for row in seen])}
    known = [(row.token_confidence, row.hits) for row in seen
             if row.hits is not None and row.token_confidence is not None and np.isfinite(row.token_confidence).all()]
    if known:
        told = np.concatenate([confidence for confidence, _ in known])
        right = np.concatenate([hits for _, hits in known]).astype(float)
        result.update(of_tokens(told, right))
    return result


def filtered(rows: Sequence[Row]) -> Dict[str, Any]:
    tally = FilterTally()
    for row in rows:
        if row.filter is not None:
            tally.add(row.filter, f"at {row.time:.2f} s")
    return {"interventions": dict(sorted(tally.by_name.items(), key=lambda item: -item[1])),
            "filter": {"checked": tally.checked, "run_to_the_end": tally.full,
                       "refused_share": rate(tally.refused, tally.checked),
                       "unreached_share": rate(tally.unreached, tally.full),
                       "clipped_share": rate(tally.clipped, tally.checked), "examples": tally.example}}


def reproduction(rows: Sequence[Row]) -> Dict[str, Any]:
    """Compares predictions with the recorded proposals that this very checkpoint made from the same observations."""
    known = [row.reproduction for row in rows if not math.isnan(row.reproduction)]
    decisions = sum(row.kind == DECISION for row in rows)
    if not known:
        return {"recorded_proposals": decisions, "of_this_checkpoint": 0}
    return {"recorded_proposals": decisions, "of_this_checkpoint": len(known), **_middle_and_p90(known, "m", 6),
            "max_m": float(np.max(known))}


def series(rows: Sequence[Row]) -> List[Dict[str, Any]]:
    """Returns one small record per row, for plots and machines."""
    return [{"recording": row.recording, "t": round(row.time, 3), "stamp_ns": row.stamp_ns, "phase": row.phase,
             "instruction": row.instruction, "error_m": _number(row.distance), "angle_rad": _number(row.angle),
             "gripper_ok": row.gripper_ok, "confidence": _number(row.confidence), "fused": row.fused,
             "path_distance_m": _number(row.path_distance),
             "target": [[*map(float, t.target.position), *map(float, t.target.quaternion), float(t.gripper)]
                        for t in row.targets],
             "filter": list(row.filter.interventions) if row.filter is not None else []} for row in rows]


def _number(value: float) -> Optional[float]:
    return None if math.isnan(value) else round(float(value), 5)


def _middle_and_p90(values: Sequence[float], unit: str, digits: int = 5) -> Dict[str, float]:
    return quantiles(values, {f"median_{unit}": 50.0, f"p90_{unit}": 90.0}, digits)


def _round(value: SupportsFloat, digits: int = 5) -> float:
    return round(float(value), digits)
