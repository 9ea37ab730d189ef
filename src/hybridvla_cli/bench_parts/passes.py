"""`hybridvla bench passes`: counts decoding passes over episodes of the simulated rig, against plain greedy decoding."""
from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Tuple

from hybridvla_cli import Subparsers
from hybridvla_core.files import write_json
from hybridvla_core.paths import ROOT

if TYPE_CHECKING:
    from hybridvla_core.contracts import Observation
    from hybridvla_core.policy.config import PolicyConfig
    from hybridvla_core.policy.predictor import Policy
    from hybridvla_core.robots.config import RobotConfig

#: Result of this command for the shipped checkpoint.
MEASURED = ROOT / "config" / "benchmark" / "passes.json"


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("passes", help="count decoding passes over episodes of the simulated rig")
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "tiny"))
    parser.add_argument("--task", default="blocks", help="task of the simulated rig")
    parser.add_argument("--episodes", type=int, default=40, help="number of episodes whose observations are decoded")
    parser.add_argument("--seed", type=int, default=2000001, help="seed of the first episode, as in `evaluate`")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="write the distributions as JSON to this file")
    return parser


def usual(policy: Policy) -> Tuple[PolicyConfig, RobotConfig]:
    """Returns the configurations of the simulated FR3 for a policy's views, in the mode for which it was trained.

    Raises:
        ConfigurationError: The policy does not fit the rig.
    """
    from hybridvla_core.evaluation.suite import load_configs
    from hybridvla_core.policy.fit import check_fit
    from hybridvla_sim.rigs import RIGS

    rig = RIGS["fr3"]
    config, robot = load_configs(rig.policy_for(policy.cameras), rig.robot,
                                 "ensemble" if "autoregressive" in policy.config.trained else "diffusion")
    check_fit(policy.config, config, robot)
    return config, robot


def collect(policy: Policy, config: PolicyConfig, robot: RobotConfig, task: str, seed: int, episodes: int) -> List[Observation]:
    """Returns the observations of a suite's episodes, as `hybridvla evaluate` would run them."""
    from hybridvla_core.benchmark.passes import ObservationKeeper
    from hybridvla_sim import tasks
    from hybridvla_sim.suite import Suite

    keeper = ObservationKeeper(policy)
    suite = Suite(keeper, config, robot, tasks.load(task, rig="fr3"))
    for spec in suite.task.draw(seed, episodes, switched=False):
        suite.run(spec)
    suite.rig.close()
    return keeper.observations


def counts_for(measured: Mapping[str, Any], ride_steps: int, where: str) -> Dict[str, int]:
    """Picks the distribution of early-ending decoding for the nearest measured number of denoising steps.

    Args:
        measured: Result of `hybridvla bench passes`.
        ride_steps: Number of denoising steps that carried the drafts.
        where: File of the result, for the error message.

    Returns:
        How often each number of passes was needed, by number.

    Raises:
        ConfigurationError: The file does not hold such a result.
    """
    from hybridvla_core.errors import ConfigurationError

    try:
        by_rides = measured["float32"]["ride_steps"]
        nearest = min(by_rides, key=lambda key: abs(int(key) - ride_steps))
        return by_rides[nearest]["all"]["counts"]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: not a result of `hybridvla bench passes`; make it with --json") from error


def run(args: argparse.Namespace) -> int:
    import torch

    from hybridvla_core.benchmark.passes import compare, greedy, reduced_jpeg_effect
    from hybridvla_core.policy.predictor import Policy

    torch.set_num_threads(args.threads)
    driver = Policy.from_checkpoint(args.checkpoint)
    observations = collect(driver, *usual(driver), args.task, args.seed, args.episodes)
    result: Dict[str, Any] = {"checkpoint_sha256": "", "episodes": args.episodes, "seed": args.seed,
                              "observations": len(observations)}
    for dtype in args.dtypes:
        rides = {}
        everything = Policy.from_checkpoint(args.checkpoint, dtype=dtype, all_tokens=True)
        decoded = [greedy(everything, observation) for observation in observations]
        steps = everything.config.ddim_steps
        for ride_steps in range(1, steps) if dtype == "float32" else (steps - 1,):
            policy = Policy.from_checkpoint(args.checkpoint, dtype=dtype, all_tokens=False, ride_steps=ride_steps)
            rides[str(ride_steps)] = compare(policy, observations, decoded=decoded)
            result["checkpoint_sha256"] = policy.manifest_sha256
            _print(f"{dtype}, draft along {ride_steps} step(s)", rides[str(ride_steps)])
        result[dtype] = {"ride_steps": rides, "all_tokens": compare(everything, observations, decoded=decoded)}
        _print(f"{dtype}, all tokens", result[dtype]["all_tokens"])
    result["reduced_jpeg"] = reduced_jpeg_effect(Policy.from_checkpoint(args.checkpoint), observations[:60])
    print(f"target moved by reduced decoding of JPEGs: {result['reduced_jpeg']}")
    write_json(args.json, result)
    return 0


def _print(title: str, row: Mapping[str, Any]) -> None:
    parts = [f"{name} {row[name]['mean']} {row[name]['counts']}" for name in ("all", "fused", "unfused")]
    print(f"{title}: passes {'; '.join(parts)}; more than greedy {row['more_than_greedy']}; differences "
          f"{row['differences']}")
