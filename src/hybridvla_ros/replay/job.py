"""One run of `hybridvla replay`: bags in, rows, checks and a summary out."""
from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.replay import sensitivity
from hybridvla_core.evaluation.replay import summary as summary_of
from hybridvla_core.evaluation.replay.evaluator import Evaluator
from hybridvla_core.evaluation.replay.filtering import FilterPool
from hybridvla_core.evaluation.replay.rows import Frame, RecordedProposal
from hybridvla_core.evaluation.replay.settings import ReplayConfig
from hybridvla_core.evaluation.replay.truth import TruthFinder
from hybridvla_core.evaluation.replay.verdict import (
    FAIL,
    Check,
    as_data,
    judge_decisions,
    judge_policy,
    judge_recording,
    reasons,
    verdict,
)
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import check_fit
from hybridvla_core.policy.interface import BatchPolicy
from hybridvla_core.report.statistics import percentiles
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.graph_names import PROPOSAL
from hybridvla_ros.replay import bags, given, reading
from hybridvla_ros.replay.frames import FrameSource, Observing
from hybridvla_ros.replay.result import Contender, Result, Sample, observing_data
from hybridvla_ros.replay.scan import Scanned, Scanner, read_proposal
from hybridvla_ros.replay.topics import TopicMap, resolve

FILM_FRAMES = 24


@dataclass(frozen=True)
class Options:
    """Options as the command line gives them.

    Attributes:
        bags: Files, or folders of them.
        checkpoint: Folder of the checkpoint to be judged.
        compare: Folder of another checkpoint, shown beside it.
        policy_config: File of the policy's configuration.
        robot_config: File of the robot's configuration.
        thresholds: File of the thresholds that must be reached.
        topics: Topic map file; None: the robot's, where there is one.
        mode: Which path acts; None: as configured.
        instruction: Used instead of the recorded ones; empty: the recorded ones.
        other_instructions: Further instructions, to ask whether the policy listens.
        rate: Predictions per second of recording, Hz; None: the policy's own rate; 0: for recorded proposals only.
        proposals_from: Bag that holds the recorded proposals.
        everything: Predict also while the filter was not following.
        batch: Number of observations predicted together.
        senses: Whether to ask if the policy looks and listens.
        scratch: Folder for re-indexed copies.
        stamps: Where the time of a message is read from.
    """

    bags: Tuple[str, ...]
    checkpoint: str
    compare: Optional[str]
    policy_config: Path
    robot_config: Path
    thresholds: Path
    topics: Optional[Path]
    mode: Optional[str]
    instruction: str
    other_instructions: Tuple[str, ...]
    rate: Optional[float]
    proposals_from: Optional[Path]
    everything: bool
    batch: int
    senses: bool
    scratch: Optional[Path]
    stamps: str = reading.HEADER


class Replay:
    """Loads everything that can be wrong before it reads through the first bag."""

    def __init__(self, options: Options) -> None:
        self.options = options
        config = load_file(PolicyConfig, options.policy_config)
        self.config = replace(config, mode=options.mode) if options.mode else config
        self.robot = load_file(RobotConfig, options.robot_config)
        self.settings = load_file(ReplayConfig, options.thresholds)
        default = ROOT / "config/replay" / f"{self.robot.name}.yaml"
        chosen = options.topics or (default if default.is_file() else None)
        self.map = load_file(TopicMap, chosen) if chosen else TopicMap()
        self.notes: List[str] = []

    def run(self) -> Result:
        """Runs the replay. Raises HybridVLAError when there is nothing to judge at all."""
        started = time.monotonic()
        folders = [self.options.checkpoint] + ([self.options.compare] if self.options.compare else [])
        policies = [self._policy(folder) for folder in folders]
        pool = FilterPool(self.robot, self.settings.filter.run_s)
        try:
            with bags.BagShelf(self.options.scratch) as shelf:
                scanned, unread = self._scan(shelf)
                contenders = [Contender(folder, policy, self._evaluator(policy, pool, scanned))
                              for folder, policy in zip(folders, policies)]
                observed = self._replay(contenders, scanned, unread)
            for contender in contenders:
                contender.evaluator.finish()
        finally:
            pool.close()
        return self._result(contenders, scanned, unread, observed, time.monotonic() - started)

    def _policy(self, folder: str) -> BatchPolicy:
        import os

        import torch

        from hybridvla_core.policy.predictor import Policy

        # One core belongs to the filter's process; with OMP_NUM_THREADS set, torch already has its number of threads.
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
        policy = Policy.from_checkpoint(folder, mode=self.config.mode, device=self.config.device, dtype=self.config.dtype,
                                        precision=self.config.precision)
        check_fit(policy, self.config, self.robot)
        return policy

    def _evaluator(self, policy: BatchPolicy, pool: FilterPool, scanned: List[Scanned]) -> Evaluator:
        total = sum(found.duration for found in scanned)
        return Evaluator(policy, self.config, self.robot, self.settings, pool, self.options.batch,
                         film_every_s=max(total / FILM_FRAMES, 0.5))

    # Reading -------------------------------------------------------------------------------------------------------

    def _scan(self, shelf: bags.BagShelf) -> Tuple[List[Scanned], List[str]]:
        """Runs the first pass; an unusable bag is named, and the others go on."""
        opened: List[bags.BagFile] = []
        unread: List[str] = []
        for path in given.expand(self.options.bags, self.notes, unread):
            try:
                opened.append(shelf.open(path))
            except bags.TooManyOpen:
                raise
            except Exception as error:  # noqa: BLE001  # one bad bag, however bad, never ends the run
                unread.append(_sentence(str(path), error))
        scanner = Scanner(self.config, self.robot, self.settings, self.options.instruction, self.options.stamps)
        scanned: List[Scanned] = []
        for files in given.recordings(opened):
            name = files[0].path.name if len(files) == 1 else f"{files[0].path.name} and {len(files) - 1} more"
            try:
                found = {topic: kind for opened in files for topic, kind in opened.topics.items()}
                topics = resolve(self.config, self.robot, self.map, found, str(files[0].path))
                scanned.append(scanner.scan(name, files, topics))
                self.notes += [f"{name}: {note}" for note in scanned[-1].notes]
            except bags.TooManyOpen:
                raise
            except Exception as error:  # noqa: BLE001  # as above
                unread.append(_sentence(name, error))
        if not scanned:
            raise HybridVLAError("; ".join(unread) if unread else "no bag was given")
        if self.options.proposals_from is not None:
            self._foreign_proposals(shelf, scanned)
        return scanned, unread

    def _foreign_proposals(self, shelf: bags.BagShelf, scanned: List[Scanned]) -> None:
        """Reads proposals that a live node made from the very messages of these bags, recorded elsewhere."""
        other = shelf.open(self.options.proposals_from)
        topic = self.map.proposals or PROPOSAL
        found: List[RecordedProposal] = []
        left_out = reading.LeftOut()
        for record in reading.read([other], scanned[0].topics, [topic], left_out=left_out):
            proposal = read_proposal(bags.message(record.raw, topic, other.path))
            if proposal is not None:
                found.append(proposal)
        self.notes += left_out.notes()
        if not found:
            older = f" ({'; '.join(left_out.notes())})" if left_out.older else ""
            raise HybridVLAError(f"{other.path}: no proposal on {topic}{older}; record the live node's proposals first")
        for recording in scanned:
            recording.proposals = found

    def _replay(self, contenders: List[Contender], scanned: List[Scanned], unread: List[str]) -> List[Observing]:
        """Runs the second pass. Memory holds one batch and the few moments kept for pictures and senses."""
        from tqdm import tqdm

        rate = self.config.prediction_rate_hz if self.options.rate is None else self.options.rate
        sample = Sample(scanned, self.settings.senses.frames if self.options.senses else 0)
        observed = []
        total = sum(found.duration for found in scanned)
        with tqdm(total=total, unit="s", unit_scale=True, desc="replay", leave=False) as bar:
            for number, found in enumerate(scanned):
                source = FrameSource(found, contenders[0].policy, self.config, self.robot, rate, found.proposals,
                                     self.options.everything, told=bool(self.options.instruction))
                truth = found.motion(self.config.convention)
                for contender in contenders:
                    contender.evaluator.begin(number, TruthFinder(truth, self.config.convention, self.settings.motion))
                for frame in _readable(source, found.name, unread):
                    sample.offer(number, frame)
                    for contender in contenders:
                        contender.evaluator.add(frame)
                    bar.update(max(0.0, sum(f.duration for f in scanned[:number]) + frame.time - bar.n))
                for contender in contenders:
                    contender.evaluator.flush()
                observed.append(source.observing)
                self.notes += [f"{found.name}: {source.observing.remark}"] if source.observing.remark else []
        others = list(self.options.other_instructions)
        for found in scanned:
            others += [text for _, text in found.recording.instructions if text not in others]
        for contender in contenders:
            if sample.frames:
                contender.senses = sensitivity.SensitivityCheck(contender.policy, self.config, self.settings.senses, others).run(
                    sample.frames)
        return observed

    # Results -------------------------------------------------------------------------------------------------------

    def _result(self, contenders: List[Contender], scanned: List[Scanned], unread: List[str], observed: List[Observing],
                seconds: float) -> Result:
        recordings, stream_checks = [], []
        for found, observing in zip(scanned, observed):
            streams = {name: stream.summary() for name, stream in found.streams.items()}
            seen = observing_data(observing)
            stream_checks += judge_recording(found.name, streams, seen, self.settings)
            if self.options.proposals_from is None:
                stream_checks += judge_decisions(found.name, seen["decisions"], seen["unmatched_proposals"],
                                                 seen["unmatched_problems"], self.settings)
            recordings.append({"name": found.name, "files": [str(opened.path) for opened in found.files],
                               "duration_s": round(found.duration, 3), "streams": streams, "observing": seen,
                               "instructions": [text for _, text in found.recording.instructions],
                               "recorded_proposals": len(found.proposals),
                               "recorded_ms": percentiles([proposal.ms for proposal in found.proposals])})
        if self.options.proposals_from is not None:
            stream_checks += self._judge_given(self.options.proposals_from, scanned, observed)
        summaries, all_checks = [], []
        for contender in contenders:
            summary, checks = self._judge(contender)
            summaries.append(summary)
            all_checks.append(checks)
        checks = stream_checks + all_checks[0] + [
            Check("recording", f"readable {index + 1}", FAIL, text) for index, text in enumerate(unread)]
        duration = sum(found.duration for found in scanned)
        summary = {"verdict": verdict(checks), "reasons": reasons(checks), "recordings": len(scanned), **summaries[0],
                   "speed_over_realtime": round(duration / max(seconds, 1e-9), 2), "seconds": round(seconds, 2),
                   "recorded_s": round(duration, 2), "bags": recordings, "unread": unread, "notes": self.notes,
                   "checks": as_data(checks)}
        if len(summaries) > 1:
            summary["compared"] = {**summaries[1], "verdict": verdict(all_checks[1]), "reasons": reasons(all_checks[1])}
        return Result(summary, checks, unread, self.notes, contenders, scanned)

    def _judge_given(self, path: Path, scanned: List[Scanned], observed: List[Observing]) -> List[Check]:
        """Judges proposals from another bag: each recording is asked for all of them, and each belongs to one recording."""
        asked = len(scanned[0].proposals)
        matched = sum(observing.decisions.due - observing.decisions.missed for observing in observed)
        found = sum((observing.decisions.problems for observing in observed), Counter())
        return judge_decisions(path.name, asked, max(asked - matched, 0), found, self.settings, given=True)

    def _judge(self, contender: Contender) -> Tuple[Dict[str, Any], List[Check]]:
        rows = contender.evaluator.rows
        summary = summary_of.summarise(rows, self.config.convention.arms, self.settings)
        sensed = sensitivity.summarise(contender.senses, self.settings.senses)
        latency = percentiles(contender.senses.single_ms) if contender.senses is not None else {}
        summary.update({"checkpoint": contender.folder, "checkpoint_sha256": contender.policy.manifest_sha256,
                        "mode": self.config.mode, "senses": sensed, "latency_ms": latency})
        return summary, judge_policy(summary, sensed, latency, self.settings)


def _sentence(name: str, error: Exception) -> str:
    """Says what is wrong with a bag; an unforeseen error is given with its kind and the bag's name."""
    if isinstance(error, HybridVLAError):
        return str(error)
    return f"{name}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:160]}); the file may be damaged"


def _readable(source: FrameSource, name: str, unread: List[str]) -> Iterator[Frame]:
    """Yields the frames of a recording up to its end, or to where it becomes unreadable, which `unread` then receives."""
    frames = iter(source)
    while True:
        try:
            frame = next(frames, None)
        except bags.TooManyOpen:
            raise
        except Exception as error:  # noqa: BLE001  # the other bags go on
            unread.append(_sentence(name, error))
            return
        if frame is None:
            return
        yield frame
