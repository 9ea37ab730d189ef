"""Choice of the data set that a sample comes from: weights from a file, renormalised over the sets present."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np

from hybridvla_core.configuration import load_file, require
from hybridvla_core.errors import DataError


@dataclass(frozen=True)
class MixtureConfig:
    """Content of `config/mixtures/*.yaml`.

    Attributes:
        weights: Name of a data set -> its share of the draws, in any unit.
        views: The view to show, for sets with several; if empty, the model's cameras.
        source: Where the weights come from, for people.
    """

    weights: Dict[str, float]
    views: Tuple[str, ...] = ()
    source: str = ""
    aliases: Dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(bool(self.weights), "a mixture names no data set")
        wrong = sorted(name for name, weight in self.weights.items() if not 0 < weight < float("inf"))
        require(not wrong, f"weights of {', '.join(wrong)} must be above 0; leave a set out instead")
        unknown = sorted(set(self.aliases.values()) - set(self.weights))
        require(not unknown, f"aliases lead to {', '.join(unknown)}, which have no weight")

    def name_of(self, name: str) -> str:
        """Returns the name by which the mixture knows a set."""
        return self.aliases.get(name, name)


@dataclass(frozen=True)
class Mixture:
    """Data sets and their shares of the draws, which sum to 1."""

    names: Tuple[str, ...]
    shares: Tuple[float, ...]

    def table(self, absent: Sequence[str] = ()) -> str:
        """Returns the shares for people to read, and which sets of the file are missing."""
        lines = [f"  {100 * share:6.2f} %  {name}" for name, share in zip(self.names, self.shares)]
        return "\n".join([*lines, *([f"  not present: {', '.join(absent)}"] if absent else [])])

    def draw(self, count: int, sizes: Sequence[int], rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
        """Draws with replacement; returns the data set (count,) and the place within it (count,) of every draw."""
        sets = np.searchsorted(np.cumsum(self.shares)[:-1], rng.random(count), side="right")
        places = (rng.random(count) * np.asarray(sizes)[sets]).astype(np.int64)
        return sets, np.minimum(places, np.asarray(sizes)[sets] - 1)


def read_mixture(path: Path) -> MixtureConfig:
    """Reads a file of weights.

    Args:
        path: Path of the file.

    Returns:
        The weights.

    Raises:
        ConfigurationError: A key or a weight does not fit; the message names it.
    """
    return load_file(MixtureConfig, path)


def mix(config: MixtureConfig, present: Sequence[str], where: str) -> Tuple[Mixture, List[str]]:
    """Computes the shares of the present sets, renormalised.

    Args:
        config: The weights.
        present: Names of the present sets.
        where: Name of the weights in messages.

    Returns:
        The shares, and the names of the missing sets.

    Raises:
        DataError: The mixture does not name a present set, or one is present twice.
    """
    names = [config.name_of(name) for name in present]
    unknown = sorted(set(names) - set(config.weights))
    if unknown:
        raise DataError(f"{where}: names no weight for {', '.join(unknown)}; add one, or leave the data set out")
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise DataError(f"{where}: {', '.join(double)} appears more than once")
    return _shares(dict(zip(present, (config.weights[name] for name in names)))), sorted(set(config.weights) - set(names))


def by_size(sizes: Mapping[str, int]) -> Mixture:
    """Returns a mixture in which every frame of every set is equally frequent."""
    return _shares({name: float(size) for name, size in sizes.items()})


def _shares(weights: Mapping[str, float]) -> Mixture:
    total = sum(weights.values())
    return Mixture(tuple(weights), tuple(weight / total for weight in weights.values()))
