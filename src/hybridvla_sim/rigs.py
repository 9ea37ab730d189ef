"""The simulated rigs that commands name: their kinds and the configurations that belong to them."""
from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Sequence, Tuple

from hybridvla_core.configuration import load_file
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig


@dataclass(frozen=True)
class NamedRig:
    """A rig by its name on the command line.

    Attributes:
        kind: Kind of rig, as a task names it.
        robot: Configuration file of the robot.
        policies: Configuration files of policies for this rig; the first is the default.
        views: All of its cameras, in the policy's order.
    """

    kind: str
    robot: Path
    policies: Tuple[Path, ...]
    views: Tuple[str, ...]

    @property
    def policy(self) -> Path:
        """The default configuration of a policy."""
        return self.policies[0]

    def policy_for(self, cameras: Sequence[str]) -> Path:
        """Returns the configuration with these views; if none has them, the default one, for its error message."""
        for file in self.policies:
            if tuple(camera.view for camera in load_file(PolicyConfig, file).cameras) == tuple(cameras):
                return file
        return self.policy


RIGS: Dict[str, NamedRig] = {
    "fr3": NamedRig("fr3", ROOT / "config/robots/sim_fr3.yaml",
                    (ROOT / "config/policies/tiny.yaml", ROOT / "config/policies/suite.yaml"), ("front", "wrist")),
    "agilex": NamedRig("piper", ROOT / "config/robots/agilex.yaml", (ROOT / "config/policies/dual.yaml",),
                       ("front", "right", "left"))}


def add_rig(parser: argparse.ArgumentParser) -> None:
    """Adds `--rig`."""
    parser.add_argument("--rig", choices=sorted(RIGS), default="fr3", help="simulated rig: one FR3, or two Pipers")
