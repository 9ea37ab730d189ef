"""`hybridvla predict`: predicts one action from images, an instruction and a robot state."""
from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import numpy as np

from hybridvla_cli import Subparsers
from hybridvla_core.contracts import Mode
from hybridvla_core.errors import ObservationError, few
from hybridvla_core.files import write_json
from hybridvla_core.policy.config import PRECISIONS
from hybridvla_core.transforms.conventions import DOF_PER_ARM

if TYPE_CHECKING:
    from hybridvla_core.contracts import Prediction
    from hybridvla_core.policy.predictor import Policy

CHANNELS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("predict", help="predict one action from images, an instruction and a robot state")
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder")
    parser.add_argument("--image", required=True, action="append",
                        help="image file; give one for each view, in the checkpoint's camera order")
    parser.add_argument("--instruction", required=True)
    parser.add_argument("--state", required=True,
                        help="state of each arm, comma-separated: x,y,z (m), roll,pitch,yaw (rad), gripper (if the first "
                             "number is negative, write --state=-0.1,...)")
    parser.add_argument("--mode", choices=Mode.names(), default="ensemble")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--stamp-ns", type=int, default=0, help="stamp of the observation, which the noise also depends on")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--precision", choices=PRECISIONS, default="full",
                        help="precision of the decoder's weights; fewer bits change predictions")
    parser.add_argument("--compare-float32", action="store_true",
                        help="predict again in full float32 and report what --dtype and --precision changed, in mm and degrees")
    parser.add_argument("--json", help="write the prediction as JSON to this file")
    return parser


def run(args: argparse.Namespace) -> int:
    from hybridvla_core.transforms.pictures import read_file

    state, images = _state(args.state), [read_file(path, f"--image {path}") for path in args.image]

    from hybridvla_core.contracts import Observation
    from hybridvla_core.policy.predictor import Policy

    policy = Policy.from_checkpoint(args.checkpoint, mode=args.mode, device=args.device, dtype=args.dtype,
                                    precision=args.precision)
    if len(images) != len(policy.cameras):
        raise ObservationError(f"{len(images)} image(s) given, the checkpoint needs {len(policy.cameras)}: "
                               f"{', '.join(policy.cameras)}, in this order")
    observation = Observation(dict(zip(policy.cameras, images)), args.instruction, state, args.stamp_ns)
    prediction = policy.predict(observation, seed=args.seed)
    notes = _notes(policy, args.instruction, state)
    result = {**_result(policy, prediction, args), "notes": notes}
    names = ["dx", "dy", "dz", *CHANNELS[3:]] * len(policy.convention.arms)
    for row in result["action"]:
        print("  ".join(f"{name} {value:+.4f}" for name, value in zip(names, row)))
    if prediction.token_confidence is not None:
        print(f"mean confidence {prediction.mean_confidence:.3f}; {'fused' if prediction.fused else 'not fused'}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if args.compare_float32:
        del policy  # never two models at once
        exact = Policy.from_checkpoint(args.checkpoint, mode=args.mode, device=args.device).predict(observation, seed=args.seed)
        result["against_float32"] = _compare(exact, prediction)
    write_json(args.json, result)
    return 0


def _notes(policy: Policy, instruction: str, state: np.ndarray) -> List[str]:
    """Returns one sentence for each part of the input that the model did not see."""
    notes = []
    words, channels = policy.unknown_words(instruction), policy.clipped(state)
    if words:
        notes.append(f"the model does not know {few(words)}; say it in other words")
    if channels:
        told = [f"{CHANNELS[channel % DOF_PER_ARM]} of {policy.convention.arms[channel // DOF_PER_ARM]} ({state[channel]:g})"
                for channel in channels]
        notes.append(f"outside the training data, and seen at its edge: {few(told, 14)}; check units, frame and gripper sense")
    return notes


def _compare(exact: Prediction, prediction: Prediction) -> Dict[str, Optional[Dict[str, float]]]:
    from hybridvla_core.evaluation.precision import prediction_difference, sentence

    differences = prediction_difference(exact, prediction)
    for name, difference in differences.items():
        if difference is not None:
            print(sentence(f"against float32, {name}", difference))
    return differences


def _state(text: str) -> np.ndarray:
    try:
        return np.array([float(part) for part in text.replace(" ", "").split(",")])
    except ValueError as error:
        raise ObservationError(f"--state {text!r}: {error}; give numbers separated by commas") from error


def _result(policy: Policy, prediction: Prediction, args: argparse.Namespace) -> Dict[str, Any]:
    def rows(array: Optional[np.ndarray]) -> Optional[List[Any]]:
        return None if array is None else np.asarray(array).tolist()

    stages: List[Any] = [{"name": name, "ms": round(ms, 3)} for name, ms in prediction.stage_ms.items()]
    return {"action": rows(prediction.action), "mode": args.mode, "fused": prediction.fused,
            "diffusion": rows(prediction.diffusion), "autoregressive": rows(prediction.autoregressive),
            "token_confidence": rows(prediction.token_confidence),
            "mean_confidence": None if prediction.token_confidence is None else prediction.mean_confidence,
            "path_distance_m": _number(prediction.path_distance), "path_angle_rad": _number(prediction.path_angle),
            "instruction": args.instruction, "seed": args.seed, "stamp_ns": args.stamp_ns,
            "checkpoint_sha256": policy.manifest_sha256, "arms": list(policy.convention.arms),
            "cameras": list(policy.cameras), "stages": stages}


def _number(value: float) -> Optional[float]:
    return None if np.isnan(value) else float(value)
