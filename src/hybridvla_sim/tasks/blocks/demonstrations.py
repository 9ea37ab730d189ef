"""Write demonstration shards: pictures of sampled world states with the expert's label for every instruction.

    python -m hybridvla_sim.tasks.blocks.demonstrations --out data/shards --count 24000 --seed 1
"""
from __future__ import annotations

import argparse
import multiprocessing
import os
from pathlib import Path
from typing import List, Tuple

import numpy as np
from tqdm import tqdm

from hybridvla_sim.tasks.blocks.dataset import Row, label_row
from hybridvla_sim.tasks.blocks.pictures import SceneCamera
from hybridvla_sim.tasks.blocks.sampler import MIXTURES, sample_state

LARGEST_SEED = 1_000_000


def write_rows(path: Path, rows: List[Row]) -> None:
    """Stack rows into an uncompressed `.npz`, by rename, so that a shard is whole or absent."""
    partial = path.with_name(path.name + ".part.npz")
    np.savez(str(partial), **{name: np.stack([row[name] for row in rows]) for name in rows[0]})
    os.replace(str(partial), str(path))


def write_shard(path: Path, seed: int, count: int, mixture: str) -> None:
    rng, camera, rows = np.random.default_rng(seed), SceneCamera(), []
    while len(rows) < count:
        state = sample_state(rng, mixture)
        if state is None:
            continue
        camera.randomise(rng)
        if camera.pose(state):
            rows.append(label_row(state, *camera.pair()))
    camera.close()
    write_rows(path, rows)


def _job(job: Tuple[Path, int, int, str]) -> Path:
    if not job[0].exists():
        write_shard(*job)
    return job[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--count", type=int, default=24000, help="samples in all")
    parser.add_argument("--seed", type=int, default=1, help="of the first shard; the next ones count on")
    parser.add_argument("--per-shard", type=int, default=500)
    parser.add_argument("--mixture", choices=sorted(MIXTURES), default="base")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    shards = -(-arguments.count // arguments.per_shard)
    if arguments.seed < 0 or arguments.seed + shards > LARGEST_SEED:
        parser.error(f"training seeds lie in [0, {LARGEST_SEED}]; larger ones belong to evaluation")
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = [(arguments.out / f"{arguments.mixture}-{seed:06d}.npz", seed, arguments.per_shard, arguments.mixture)
            for seed in range(arguments.seed, arguments.seed + shards)]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool, \
            tqdm(total=shards * arguments.per_shard, unit="image") as bar:
        for _path in pool.imap_unordered(_job, jobs):
            bar.update(arguments.per_shard)


if __name__ == "__main__":
    main()
