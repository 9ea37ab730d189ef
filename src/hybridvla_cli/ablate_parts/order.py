"""The order: checkpoints by name, tasks, episodes; and the cells that follow from it."""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence

from hybridvla_core.checkpoints.config import CheckpointConfig
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.ablation.cells import REMOTE, Cell
from hybridvla_core.evaluation.ablation.opening import check_paths
from hybridvla_core.evaluation.ablation.tables import GIVEN, Row
from hybridvla_core.evaluation.ablation.variant import Variant
from hybridvla_core.evaluation.trained import Goals, check_trained
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.remote.settings import RemoteSource

#: How long to wait for a remote policy that is named by its address alone, s.
CONNECT_S = 10.0
#: Endings of the name of a policy configuration.
FILES = (".yaml", ".yml")
#: What the error of a bare address can ask for, and only a file can say.
SETTINGS = ("insecure_lan", "remote.", "dialect")


@dataclass(frozen=True)
class Source:
    """Source of predictions: a checkpoint's folder, or a policy on a server.

    Attributes:
        place: Folder, or ws:// or wss:// with host and port.
        manifest: sha256 of its manifest; empty for a remote policy that has none.
        config: Configuration of the checkpoint; None for a remote policy.
        remote: How to reach a remote policy; None for a folder.
    """

    place: str
    manifest: str
    config: Optional[CheckpointConfig]
    remote: Optional[RemoteSource] = None

    @classmethod
    def open(cls, place: str) -> Source:
        """Opens a source and reads its description.

        Args:
            place: Folder of a checkpoint, address of a server, or policy configuration with a section `remote`.

        Returns:
            The source; without a configuration if it is a server.

        Raises:
            HybridVLAError: The folder is not a checkpoint, the file names no server, or the server does not answer or refuses.
        """
        if place.startswith(REMOTE):
            try:
                return cls._elsewhere(RemoteSource(place), CONNECT_S)
            except HybridVLAError as error:
                if not any(word in str(error) for word in SETTINGS):
                    raise
                raise HybridVLAError(f"{error}; settings are in the section `remote` of a policy configuration: name its file, "
                                     "FILE.yaml, in place of the address (docs/remote.md)") from error
        if Path(place).suffix in FILES:
            remote = load_file(PolicyConfig, place).remote
            if remote is None:
                raise HybridVLAError(f"{place}: has no section `remote`, so it names no server; add one (docs/remote.md), or "
                                     "name a checkpoint folder")
            return cls._elsewhere(remote, remote.connect_timeout_s)
        found = read_checkpoint(Path(place))
        return cls(place, found.manifest_sha256, found.config)

    @classmethod
    def _elsewhere(cls, remote: RemoteSource, timeout_s: float) -> Source:
        """Asks a server which policy it has, and waits for it no longer than `timeout_s`."""
        from hybridvla_core.policy.remote.client import RemotePolicy

        policy = RemotePolicy(replace(remote, connect_timeout_s=timeout_s))
        try:
            return cls(remote.url, policy.manifest_sha256, None, remote)
        finally:
            policy.close()


def servers(sources: Mapping[str, Source]) -> Dict[str, RemoteSource]:
    """Returns how to reach the remote policies among the sources, by address.

    Raises:
        HybridVLAError: One address is given with different settings; results are kept by address.
    """
    found: Dict[str, RemoteSource] = {}
    for name, source in sources.items():
        if source.remote is not None and found.setdefault(source.place, source.remote) != source.remote:
            raise HybridVLAError(f"--policy {name}: {source.place} is named twice, with different settings; name it once")
    return found


@dataclass
class Order:
    """Determines the cells of a row.

    Attributes:
        sources: Sources by the name that rows use.
        tasks: Tasks by name, with their goals and the goals' sentences.
        seed: Seed of the first episode.
        episodes: Number of episodes per cell.
        repeats: Number of cells per row and task.
        policy_config: Digest of the policy's configuration.
        robot_config: Digest of the robot's configuration.
        origin: Digest of the code, simulator and renderer of the episodes.
        refused: Why a cell is not run, by its key.
        takes_poses: Whether the rig's arms take poses; if they take joints, only the filter computes them.
    """

    sources: Mapping[str, Source]
    tasks: Mapping[str, Goals]
    seed: int
    episodes: int
    repeats: int
    policy_config: str = ""
    robot_config: str = ""
    origin: str = ""
    refused: Dict[str, str] = field(default_factory=dict)
    takes_poses: bool = True

    def cells(self, row: Row) -> List[Cell]:
        """Returns the cells of a row, by task and repeat; none if its model is missing. Notes each cell that cannot be run."""
        source = self.sources.get(row.model)
        if source is None:
            return []
        variant = row.variant if source.config is None else row.variant.settled(source.config)
        found = []
        for task in self.tasks:
            problem = self._problem(source, row, task)
            for repeat in range(self.repeats):
                cell = Cell(source.place, source.manifest, variant, task, self.seed + repeat * self.episodes, self.episodes,
                            filtered=row.filtered, variation=row.variation, policy_config=self.policy_config,
                            robot_config=self.robot_config, origin=self.origin)
                found.append(cell)
                if problem:
                    self.refused[cell.key] = problem
        return found

    def _problem(self, source: Source, row: Row, task: str) -> str:
        """Returns why this cannot be run; empty if it can."""
        if not row.filtered and not self.takes_poses:
            return ("without the filter nobody computes the joints of this rig's arms; --rig fr3 shows the result without the "
                    "filter")
        if source.config is None:
            return "" if row.variant == Variant(row.variant.mode) else (
                f"{source.place} can only be asked for a mode; the other rows need the checkpoint's folder")
        try:
            check_paths(source.config, source.place, row.variant.mode)
            check_trained(Path(source.place), task, self.tasks[task])
        except HybridVLAError as error:
            return str(error)
        return ""


def policies_named(pairs: Sequence[str]) -> Dict[str, str]:
    """Returns places by name from arguments NAME=PLACE.

    Raises:
        HybridVLAError: An argument has another form, or a name occurs twice.
    """
    found: Dict[str, str] = {}
    for pair in pairs:
        name, given, place = pair.partition("=")
        if not given or not name or not place or name in found or name == GIVEN:
            raise HybridVLAError(f"--policy {pair}: write NAME=CHECKPOINT, NAME=ws://HOST:PORT or NAME=FILE.yaml, each "
                                 "name once")
        found[name] = place
    return found
