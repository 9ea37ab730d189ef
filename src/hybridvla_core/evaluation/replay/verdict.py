"""Compares numbers with thresholds: a list of checks, each with a sentence that says what to look at."""
from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence

from hybridvla_core.evaluation.replay.settings import ReplayConfig

PASS, FAIL, SKIPPED = "pass", "fail", "skipped"


@dataclass(frozen=True)
class Check:
    """One check and its outcome.

    Attributes:
        group: Group of the check.
        name: Name, unique in the group.
        outcome: pass, fail or skipped (no threshold, or nothing to judge).
        text: One sentence.
        value: Value found.
        limit: Value required.
    """

    group: str
    name: str
    outcome: str
    text: str
    value: Optional[float] = None
    limit: Optional[float] = None


def verdict(checks: Sequence[Check]) -> str:
    return FAIL if any(check.outcome == FAIL for check in checks) else PASS


def reasons(checks: Sequence[Check]) -> List[str]:
    return [check.text for check in checks if check.outcome == FAIL]


def as_data(checks: Sequence[Check]) -> List[Dict[str, Any]]:
    return [asdict(check) for check in checks]


class _Judge:
    def __init__(self) -> None:
        self.checks: List[Check] = []

    def at_most(self, group: str, name: str, value: Optional[float], limit: Optional[float], what: str, advice: str) -> None:
        self._judge(group, name, value, limit, None if value is None or limit is None else value <= limit,
                    f"{what} is {_show(value)}, at most {_show(limit)} is allowed; {advice}", what)

    def at_least(self, group: str, name: str, value: Optional[float], limit: Optional[float], what: str, advice: str
                 ) -> None:
        self._judge(group, name, value, limit, None if value is None or limit is None else value >= limit,
                    f"{what} is {_show(value)}, at least {_show(limit)} is asked for; {advice}", what)

    def _judge(self, group: str, name: str, value: Optional[float], limit: Optional[float], fine: Optional[bool], text: str,
               what: str) -> None:
        if fine is None:
            text = f"{what}: {_show(value)}, not judged" if value is not None else f"{what}: nothing to judge"
        outcome = SKIPPED if fine is None else (PASS if fine else FAIL)
        self.checks.append(Check(group, name, outcome, text if outcome == FAIL else f"{what}: {_show(value)}"
                                 if outcome == PASS else text, value, limit))


def judge_policy(summary: Mapping[str, Any], senses: Mapping[str, Any], latency: Mapping[str, float],
                 settings: ReplayConfig) -> List[Check]:
    """Judges the checkpoint over all recordings."""
    judge, rules, errors = _Judge(), settings.errors, summary["errors"]
    advice = "record more motion, or check that the instruction and the robot's state are in the bag" if summary["frames"] else (
        "nothing was predicted at all: see why the recordings gave no observation")
    judge.at_least("errors", "compared", errors["compared"], rules.min_compared, "the number of comparable frames", advice)
    look = "look at the worst moments in the report"
    for name, key, limit, what in (
            ("median", "median_m", rules.max_median_m, "the median distance to where the robot went, m,"),
            ("p90", "p90_m", rules.max_p90_m, "the 90 % distance to where the robot went, m,"),
            ("rotation", "median_rad", rules.max_median_rad, "the median angle to how the robot turned, rad,")):
        judge.at_most("errors", name, errors.get(key), limit, what, look)
    judge.at_most("errors", "decisions", errors.get("decisions", {}).get("median_m"), rules.max_decisions_median_m,
                  "the median distance to where the robot went after a recorded decision, m,", look)
    judge.at_least("errors", "gripper", errors.get("gripper_agreement"), rules.min_gripper_agreement,
                   "the share of frames whose gripper agrees", look)
    for arm, axes in errors.get("per_axis", {}).items():
        for axis, values in axes.items():
            where = f"{arm} {axis}"
            advice = ("the statistics that turn the model's numbers into metres may not belong to this model or robot: "
                      "check dataset_statistics.json")
            judge.at_least("errors", f"gain {where}", values["gain"], rules.min_gain,
                           f"predicted over recorded motion along {where}", advice)
            judge.at_most("errors", f"gain {where}, upper", values["gain"], rules.max_gain,
                          f"predicted over recorded motion along {where}", advice)
            judge.at_most("errors", f"bias {where}", abs(values["bias_m"]), rules.max_bias_m,
                          f"the constant error along {where}, m,", advice)
    judge.at_most("errors", "calibration", summary["confidence"].get("expected_calibration_error"),
                  rules.max_calibration_error, "the expected calibration error of the tokens", look)
    judge.at_most("errors", "reproduction", summary["reproduction"].get("p90_m"), rules.max_reproduction_m,
                  "the distance to the proposals this checkpoint made while recording (90 %), m,",
                  "images or configuration differ from the recording's")
    judge.at_most("errors", "state range", summary["state_outside_share"], rules.max_state_outside_share,
                  "the share of robot states outside the range of the checkpoint's statistics",
                  "check dataset_statistics.json, the tool and the frames in the configuration")
    _paths(judge, summary, settings)
    _filter(judge, summary, settings)
    judge.at_most("latency", "median", latency.get("median"), settings.latency.max_median_ms,
                  "the median time of one prediction, ms,", "use a faster machine or fewer steps")
    judge.at_most("latency", "p99", latency.get("p99"), settings.latency.max_p99_ms,
                  "the 99 % time of one prediction, ms,", "use a faster machine or fewer steps")
    return judge.checks + judge_senses(senses, settings)


def _paths(judge: _Judge, summary: Mapping[str, Any], settings: ReplayConfig) -> None:
    rules, found = settings.paths, summary["paths"]
    advice = "the two heads contradict each other: look at when"
    judge.at_least("paths", "fused", summary["fused_share"] if found else None, rules.min_fused_share,
                   "the share of fused predictions", "the confidence gate rarely opens")
    judge.at_most("paths", "distance", found.get("p90_m"), rules.max_distance_p90_m,
                  "the 90 % distance between the two paths, m,", advice)
    judge.at_most("paths", "angle", found.get("p90_rad"), rules.max_angle_p90_rad,
                  "the 90 % angle between the two paths, rad,", advice)


def _filter(judge: _Judge, summary: Mapping[str, Any], settings: ReplayConfig) -> None:
    rules, found = settings.filter, summary["filter"]
    example = next((found["examples"][name] for name in summary["interventions"] if name in found["examples"]), "")
    advice = f"for example {example}" if example else "see the table of interventions"
    checked, full = found["checked"] or None, found["run_to_the_end"] or None
    judge.at_most("filter", "refused", checked and found["refused_share"], rules.max_refused_share,
                  "the share of proposals that the safety filter refuses", advice)
    judge.at_most("filter", "reached", full and found["unreached_share"], rules.max_unreached_share,
                  "the share of targets that the safety filter does not reach", advice)
    judge.at_most("filter", "workspace", checked and found["clipped_share"], rules.max_clipped_share,
                  "the share of targets outside the workspace", advice)


def judge_senses(senses: Mapping[str, Any], settings: ReplayConfig) -> List[Check]:
    """Judges whether the policy ignores the instruction, a camera or the state."""
    checks = []
    if not senses:
        return [Check("senses", "senses", SKIPPED, "whether the policy looks and listens was not checked")]
    spread = senses["seed_spread_m"]
    words = {"instruction": ("deaf: another instruction", "it was trained without language, or on one task"),
             "state": ("numb: another robot state", "it was trained without the state")}
    for name, sense in senses["senses"].items():
        judged = settings.senses.min_ratio is not None and (name != "state" or settings.senses.require_state)
        start, why = words.get(name, (f"blind to {name}: other images", "it was trained without this view, or another one "
                                                                       "says as much"))
        move = sense["median_move_m"]
        text = (f"the policy is {start} move{'' if start.endswith('s') else 's'} its target by {move * 1e3:.1f} mm, another "
                f"noise seed by {spread * 1e3:.1f} mm; {why}")
        if sense["used"] or not judged:
            text = f"{name}: moves the target by {move * 1e3:.1f} mm, noise seeds by {spread * 1e3:.1f} mm"
        outcome = SKIPPED if not judged else (PASS if sense["used"] else FAIL)
        checks.append(Check("senses", name, outcome, text, sense["ratio"], settings.senses.min_ratio))
    for name, why in senses["skipped"].items():
        checks.append(Check("senses", f"{name} (not checked)", SKIPPED, why))
    return checks


def judge_recording(name: str, streams: Mapping[str, Mapping[str, Any]], observing: Mapping[str, Any],
                    settings: ReplayConfig) -> List[Check]:
    """Judges one recording. observing: due, missed, problems, spread_p99_s."""
    checks: List[Check] = []
    for stream, found in streams.items():
        events = found["events"]
        for number, event in enumerate(events):
            more = f" (and {found['further_events']} more)" if number + 1 == len(events) and found["further_events"] else ""
            checks.append(Check("recording", f"{name}: {stream} {event['kind']} {number + 1}", FAIL,
                                f"{name}: {event['text']}{more}"))
        if not events:
            checks.append(Check("recording", f"{name}: {stream}", PASS, f"{name}: {stream} at {found['rate_hz']} Hz"))
    judge, rules = _Judge(), settings.streams
    judge.at_most("recording", f"{name}: spread", observing.get("spread_p99_s"), rules.max_spread_p99_s,
                  f"{name}: the spread of the cameras' stamps (99 %), s,", "synchronise the cameras")
    worst = next(iter(observing["problems"]), "")
    if "stamp" in worst or "clock" in worst:
        worst += "; stamps that mean nothing any more, as in a bag recorded anew, are replaced by --stamps recording"
    share = observing["missed"] / observing["due"] if observing["due"] else None
    judge.at_most("recording", f"{name}: observations", None if share is None else round(share, 4),
                  rules.max_unobserved_share, f"{name}: the share of predictions without an observation",
                  f"most often: {worst}")
    return checks + judge.checks


def judge_decisions(name: str, asked: int, unmatched: int, problems: Mapping[str, int], settings: ReplayConfig,
                    given: bool = False) -> List[Check]:
    """Judges how many recorded proposals could not be predicted again.

    Args:
        name: Name of the recording, or of the bag that the proposals come from.
        asked: Number of recorded proposals.
        unmatched: Number of those without an observation.
        problems: Sentence -> how often it applied.
        settings: Settings with the allowed share.
        given: Whether the proposals were given separately: then it is a failure, whatever is allowed, if none of them belongs to
            the recordings.

    Returns:
        One check.
    """
    often = f"most often: {max(problems, key=lambda text: problems[text])}" if problems else "see the recordings' streams"
    what = f"{name}: the share of recorded proposals without an observation"
    if given and asked and unmatched == asked:
        text = (f"{name}: none of its {asked} proposals was made from images in the recordings ({often}); give the bags that "
                "were played when it was recorded")
        return [Check("recording", f"{name}: decisions", FAIL, text, 1.0, settings.streams.max_unobserved_share)]
    judge = _Judge()
    judge.at_most("recording", f"{name}: decisions", round(unmatched / asked, 4) if asked else None,
                  settings.streams.max_unobserved_share, what, often)
    return judge.checks


def _show(value: Optional[float]) -> str:
    return "unknown" if value is None else f"{value:.4g}"
