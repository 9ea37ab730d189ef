"""What a recording holds: topics, limits, disk. Read from `config/recording/*.yaml`. No ROS."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from hybridvla_core.configuration import one_of
from hybridvla_core.errors import ConfigurationError

COMPRESSIONS = ("none", "lz4", "bz2")


@dataclass(frozen=True)
class TopicConfig:
    """One recorded topic.

    Attributes:
        name: Topic name with its leading slash.
        required: If true, no recording starts without this topic, and a silence above max_gap_s breaks the bag.
        max_gap_s: Longest silence that a required topic may have, s.
        only_publisher: Refuse to start while several nodes publish the topic (a command topic that two programs fight for).
    """

    name: str
    required: bool = True
    max_gap_s: Optional[float] = None
    only_publisher: bool = False

    def __post_init__(self) -> None:
        if not self.name.startswith("/") or self.name.endswith("/"):
            raise ConfigurationError(f"topics: {self.name!r} is not a full topic name; write it with its leading slash")
        if self.max_gap_s is not None and not 0.001 <= self.max_gap_s <= 60.0:
            raise ConfigurationError(f"topics: {self.name}: max_gap_s is {self.max_gap_s}; use 0.001 to 60")


@dataclass(frozen=True)
class RecordingConfig:
    """What the recorder records, and where.

    Attributes:
        folder: Folder of the recordings, absolute or with ~. A relative one lies in the package, which its next clean empties.
        topics: Topics to record.
        snapshot_files: Configurations and calibration whose text goes into every bag, so that the bag explains itself.
        compression: Compression of the bag's chunks; JPEG topics gain nothing from it.
        queue_mb: Messages that may wait for the disk, MB; beyond it they are dropped and counted, and the bag is broken.
        start_free_gb: Free disk below which no recording starts, GB.
        stop_free_gb: Free disk below which a running recording is closed, GB.
        start_timeout_s: How long required topics may stay silent at the start, s.
        max_duration_s: Duration at which a recording is closed, s.
        max_drop_share: Share of a topic's frames lost, by its sequence numbers, above which the bag is broken.
    """

    folder: str
    topics: Tuple[TopicConfig, ...]
    snapshot_files: Tuple[str, ...] = ()
    compression: str = "none"
    queue_mb: float = 256.0
    start_free_gb: float = 10.0
    stop_free_gb: float = 2.0
    start_timeout_s: float = 3.0
    max_duration_s: float = 600.0
    max_drop_share: float = 0.02

    def __post_init__(self) -> None:
        if not self.folder.strip():
            raise ConfigurationError("folder is empty; name the folder for the bags")
        names = [topic.name for topic in self.topics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise ConfigurationError(f"topics: {twice[0]} is named twice" if twice else "topics is empty")
        one_of("compression", self.compression, COMPRESSIONS)
        for key, low, high in (("queue_mb", 1.0, 16384.0), ("start_free_gb", 0.0, 1e6), ("stop_free_gb", 0.0, 1e6),
                               ("start_timeout_s", 0.1, 60.0), ("max_duration_s", 1.0, 86400.0), ("max_drop_share", 0.0, 1.0)):
            if not low <= getattr(self, key) <= high:
                raise ConfigurationError(f"{key} is {getattr(self, key)}; use a value from {low:g} to {high:g}")
        if self.stop_free_gb > self.start_free_gb:
            raise ConfigurationError("stop_free_gb must not be above start_free_gb: a recording would end as it begins")
