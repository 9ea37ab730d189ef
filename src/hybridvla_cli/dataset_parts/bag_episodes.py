"""The episodes of a recorded bag: where they begin and end, how they were labelled, and when a person had taken over."""
from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Optional, Tuple

from hybridvla_core.errors import DataError
from hybridvla_core.robots.graph_names import EPISODE_EVENT, SNAPSHOT
from hybridvla_ros.replay import bags
from hybridvla_ros.replay.scan import ACTION_KIND, Scanned

START, SUCCESS, FAILURE, DISCARD, ABORTED = range(5)
NAMES = {SUCCESS: "success", FAILURE: "failure", DISCARD: "discard", ABORTED: "aborted"}


@dataclass(frozen=True)
class BagEpisode:
    """An episode as described by the labels in a bag.

    Attributes:
        name: Name of the bag and number of the episode.
        begin: Begin in the time of the stamps, s.
        end: End in the time of the stamps, s.
        label: success, failure, discard, aborted, or empty if it has no label.
    """

    name: str
    begin: float
    end: float
    label: str

    @property
    def success(self) -> Optional[bool]:
        return {"success": True, "failure": False}.get(self.label)


@dataclass
class Told:
    """What a bag contains besides motion and images.

    Attributes:
        episodes: Episodes in order.
        takeovers: Spans [begin, end] in which a person corrected a policy, s.
    """

    episodes: List[BagEpisode] = field(default_factory=list)
    takeovers: List[Tuple[float, float]] = field(default_factory=list)

    def at(self, stamp: float) -> int:
        """Returns the number of the episode that contains a time, s; -1 between episodes."""
        return next((index for index, episode in enumerate(self.episodes) if episode.begin <= stamp <= episode.end), -1)

    def corrected(self, stamp: float) -> bool:
        """Tells whether a person had taken over at `stamp`, s."""
        return any(begin <= stamp <= end for begin, end in self.takeovers)


def read(found: Scanned) -> Told:
    """Reads labels and takeovers of one recording.

    A recording without labels is one episode, labelled as its sidecar says.

    Args:
        found: The recording, with its topics.

    Returns:
        The episodes of the recording, and when a person took over.

    Raises:
        DataError: Our recorder did not finish the recording or marked it broken, or its labels have another message version.
    """
    for part in found.files:
        if part.path.name.endswith(".active") and SNAPSHOT in part.topics:
            raise DataError("the recorder has not finished it: it is being written, or its recorder was killed and will mark it "
                            f"when it starts again; to use it anyway, name a copy {part.path.name[:-len('.active')]}")
    sidecar = _sidecar(found)
    if sidecar.get("complete") is False:
        problems = "; ".join(map(str, sidecar.get("problems", []))) or "no reason given"
        raise DataError(f"the recorder marked it broken: {problems}")
    events: List[Tuple[float, int]] = []
    proposals: List[Tuple[float, bool]] = []
    for topic, raw, _, path, _ in found.read([EPISODE_EVENT, found.topics.proposals]):
        message = bags.message(raw, topic, path)
        if topic == EPISODE_EVENT:
            events.append((message.header.stamp.to_sec(), int(message.event)))
        elif message.kind == ACTION_KIND:
            proposals.append((message.header.stamp.to_sec(), bool(message.checkpoint_sha256)))
    older = [note for note in found.left_out.notes() if EPISODE_EVENT in note]
    if older:
        raise DataError(f"its labels cannot be read: {older[0]}")
    return Told(_episodes(found, events, sidecar), _takeovers(proposals))


def _episodes(found: Scanned, events: List[Tuple[float, int]], sidecar: Dict[str, Any]) -> List[BagEpisode]:
    """Builds episodes from a bag's events; one without an end is aborted, unless the sidecar says otherwise."""
    episodes: List[BagEpisode] = []
    begin: Optional[float] = None
    label = str(sidecar.get("label") or "")

    def keep(start: float, end: float, said: str) -> None:
        episodes.append(BagEpisode(f"{found.name} #{len(episodes) + 1}", start, end, said))

    for stamp, event in events:
        if begin is not None and (event != START or stamp > begin):
            keep(begin, stamp, NAMES.get(event, NAMES[ABORTED]))
            begin = None
        if event == START:
            begin = stamp
    if begin is not None:       # the bag may be closed before it holds the episode's label, but the recorder has heard the label
        keep(begin, math.inf, label if sidecar.get("complete") is True else NAMES[ABORTED])
    if not episodes:
        return [BagEpisode(found.name, -math.inf, math.inf, label)]
    return [replace(episodes[0], name=found.name)] if len(episodes) == 1 else episodes


def _takeovers(proposals: List[Tuple[float, bool]]) -> List[Tuple[float, float]]:
    """Returns spans from a proposal without a checkpoint, which follows one with a checkpoint, to the next one with one."""
    spans: List[Tuple[float, float]] = []
    begin, by_policy = math.nan, False
    for stamp, policy in proposals:
        if policy:
            if math.isfinite(begin):
                spans.append((begin, stamp))
            begin, by_policy = math.nan, True
        elif by_policy and not math.isfinite(begin):
            begin = stamp
    return spans + ([(begin, math.inf)] if math.isfinite(begin) else [])


def _sidecar(found: Scanned) -> Dict[str, Any]:
    path = found.files[0].path
    if path.name.endswith(".broken.bag"):
        path = path.with_name(path.name[: -len(".broken.bag")] + ".bag")
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return {"complete": False, "problems": ["its sidecar is missing"]} if ".broken." in found.files[0].path.name else {}
    try:
        data = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{sidecar}: cannot be read ({error})") from error
    return data if isinstance(data, dict) else {}
