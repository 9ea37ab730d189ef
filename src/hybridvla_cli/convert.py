"""`hybridvla convert`: converts a released run, or an OpenVLA or Prismatic base, into a checkpoint folder."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from hybridvla_cli import Subparsers
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.files import write_json

if TYPE_CHECKING:
    from hybridvla_core.checkpoints.config import EnsembleConfig
    from hybridvla_core.transforms.conventions import ActionConvention

FLAGS = {"rotation_reference_xyzw": "rotation_reference", "action_period_s": "action_period"}
DTYPES = ("float32", "bfloat16", "float16")


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "convert", help="turn a released run or a base model into a checkpoint folder",
        description="Turns RUN into the checkpoint folder OUT. State here what RUN does not say; nothing about the meaning of "
                    "an action is assumed.",
        epilog="docs/fidelity.md describes the whole way from a released run to a dry run on the robot, for one arm and for two.")
    parser.add_argument("run", metavar="RUN", help="run folder with config.json, dataset_statistics.json and "
                        "checkpoints/*.pt; the .pt itself; or an OpenVLA folder of safetensors")
    parser.add_argument("out", metavar="OUT", help="folder to create; must be new or empty")
    model = parser.add_argument_group("the model")
    model.add_argument("--camera-order", required=True, help="names of the views, comma-separated, in training order "
                                                             "(released: front, wrist, wrist_left); you may choose the names, "
                                                             "but the policy configuration must use the same ones")
    model.add_argument("--final-norm", required=True, choices=("variance", "mean_square"),
                       help="norm of the final layer: variance is what the released pins execute, mean_square what newer timm "
                            "or apex execute (docs/fidelity.md)")
    model.add_argument("--dims", type=Path, help="JSON file with every dimension, for a model whose registry name does not "
                                                 "give them")
    model.add_argument("--tokenizer", type=Path, help="tokenizer.json of the language model, or its folder; needed if RUN has "
                                                      "none")
    model.add_argument("--statistics-key", help="data set whose statistics normalise; needed if there are several")
    model.add_argument("--image-strategy", choices=("resize-naive", "letterbox", "resize-crop"),
                       help="default: what RUN says; otherwise resize-naive with DINOv2 and SigLIP, letterbox with CLIP, as "
                            "released. A strategy that contradicts RUN is refused")
    model.add_argument("--entry", help="name of the dictionary in the .pt that holds the weights, e.g. averaged ones; default: "
                                       "model, as released, or the name that other savers use")
    meaning = parser.add_argument_group("the action convention (each needed, here or in the file)")
    meaning.add_argument("--convention", type=Path, help="YAML or JSON: config/conventions/released_7dof.yaml, "
                                                         "released_14dof.yaml, a file of your own with the same keys, or a "
                                                         "policy configuration written for this very model; the options below "
                                                         "take precedence over it")
    meaning.add_argument("--arms", help="arms, comma-separated, in the order of the action vector (released: right,left)")
    meaning.add_argument("--translation", choices=("delta_base_frame",))
    meaning.add_argument("--rotation", choices=("absolute_euler_xyz", "delta_euler_xyz"))
    meaning.add_argument("--rotation-reference", help="quaternion x,y,z,w that Euler angles are relative to")
    meaning.add_argument("--gripper-sense", choices=("one_is_open", "one_is_closed"))
    meaning.add_argument("--delta-base", choices=("commanded", "measured"),
                         help="pose that a delta is added to (the released robot loop: commanded)")
    meaning.add_argument("--action-period", type=float, help="period of an action in s; 0 for keyframes")
    meaning.add_argument("--state-source", choices=("measured", "last_command"), help="what the model saw as the robot's "
                         "state (the released robot loop: last_command)")
    meaning.add_argument("--first-state", help="first state that a last_command model sees, comma-separated")
    use = parser.add_argument_group("defaults of prediction (stored in OUT; to change them later, convert again)")
    use.add_argument("--ensemble-rule", choices=("mean", "released"), default="mean",
                     help="mean: as in the paper, with rotations averaged on SO(3); released: the rule of the released script, "
                          "with its Euler arithmetic")
    use.add_argument("--condition", choices=("denoised", "noise", "released"), default="denoised",
                     help="what the tokens are conditioned on (default: the denoised action, as in the paper)")
    use.add_argument("--constant-channel", choices=("zero", "released"), default="zero",
                     help="what the model sees of a state channel that never moved in the data: zero, as in training, or what "
                          "the released loop computes")
    use.add_argument("--ddim-steps", type=int, default=4)
    store = parser.add_argument_group("storage")
    store.add_argument("--dtype", choices=DTYPES, help="type of the stored weights (default: as in RUN)")
    store.add_argument("--shard-gib", type=float, default=4.0, help="largest weight file in GiB (default 4)")
    store.add_argument("--head-seed", type=int, default=0, help="seed of the heads that a base model lacks; they need training")
    parser.add_argument("--json", help="write the result as JSON to this file")
    return parser


def run(args: argparse.Namespace) -> int:
    if not 0.001 <= args.shard_gib <= 1024:
        raise ConfigurationError(f"--shard-gib {args.shard_gib}; use 0.001 to 1024")
    convention = _convention(args)
    import torch
    from tqdm import tqdm

    from hybridvla_core.checkpoints.convert import Choices, convert, remarks
    from hybridvla_core.checkpoints.sources import open_source
    from hybridvla_core.checkpoints.target import GIB, Target

    choices = Choices(
        cameras=_names(args.camera_order, "--camera-order"), convention=convention, final_norm=args.final_norm,
        ensemble=_ensemble(args.ensemble_rule), condition=args.condition, ddim_steps=args.ddim_steps,
        image_strategy=args.image_strategy, statistics_key=args.statistics_key, dims=args.dims, tokenizer=args.tokenizer,
        dtype=getattr(torch, args.dtype) if args.dtype else None, shard_bytes=int(args.shard_gib * GIB),
        seed=args.head_seed, constant_channel=args.constant_channel)
    for leftover in Target(Path(args.out)).leftovers():
        print(f"note: {leftover}", file=sys.stderr)
    source = open_source(Path(args.run), args.entry)
    bars: List[Any] = []

    def progress(count: int, total: int) -> None:
        if not bars:
            bars.append(tqdm(total=total, unit="B", unit_scale=True, desc="convert", miniters=1, mininterval=0.2))
        bars[0].update(count)

    try:
        digest = convert(source, Path(args.out), choices, progress)
    finally:
        for bar in bars:
            bar.close()
    print(f"{args.out}: {source.kind} checkpoint, manifest {digest}")
    notes = remarks(source, choices)
    for note in notes:
        print(f"note: {note}")
    if source.untrained:
        print(f"{', '.join(source.untrained)} hold random weights: this folder is a start for training and predicts nothing")
    write_json(args.json, {"folder": str(args.out), "kind": source.kind, "manifest_sha256": digest,
                           "untrained": list(source.untrained), "notes": notes})
    return 0


def _convention(args: argparse.Namespace) -> ActionConvention:
    """Merges the options over the file; names all missing keys at once."""
    from hybridvla_core.configuration import from_mapping, read_mapping
    from hybridvla_core.transforms.conventions import ActionConvention

    keys: Dict[str, Any] = {}
    if args.convention is not None:
        found = read_mapping(args.convention)
        keys = dict(found.get("convention", found))
    given = {"arms": _split(args.arms), "translation": args.translation, "rotation": args.rotation,
             "rotation_reference_xyzw": _numbers(args.rotation_reference, "--rotation-reference"),
             "gripper_sense": args.gripper_sense, "delta_base": args.delta_base, "action_period_s": args.action_period,
             "state_source": args.state_source, "first_state": _numbers(args.first_state, "--first-state")}
    keys.update({key: value for key, value in given.items() if value is not None})
    missing = [key for key in given if key not in keys and key != "first_state"]
    if missing:
        flags = ", ".join("--" + FLAGS.get(key, key).replace("_", "-") for key in missing)
        raise ConfigurationError(f"the source does not say what its actions mean: {', '.join(missing)}; give {flags}, or "
                                 "--convention FILE")
    return from_mapping(ActionConvention, keys, str(args.convention or "the options"))


def _ensemble(rule: str) -> EnsembleConfig:
    from hybridvla_core.checkpoints.config import EnsembleConfig

    return EnsembleConfig.released() if rule == "released" else EnsembleConfig.paper()


def _split(text: Optional[str]) -> Optional[List[str]]:
    return None if text is None else [part.strip() for part in text.split(",")]


def _names(text: str, option: str) -> tuple:
    names = tuple(_split(text) or ())
    if not 1 <= len(names) <= 3 or not all(names) or len(set(names)) != len(names):
        raise ConfigurationError(f"{option} {text!r}: name 1 to 3 different views, separated by commas")
    return names


def _numbers(text: Optional[str], option: str) -> Optional[List[float]]:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigurationError(f"{option} {text!r}: {error}; give numbers separated by commas") from error
