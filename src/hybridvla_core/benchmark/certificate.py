"""A certificate that few passes gave the same result as plain greedy decoding, on this machine and with these versions."""
from __future__ import annotations

import platform
import subprocess
from typing import Any, Dict, Iterable, Iterator

import numpy as np
import torch

import hybridvla_core
from hybridvla_core.benchmark.passes import GATE_MARGIN, LOGIT_MARGIN, distribution, plain_decoding
from hybridvla_core.benchmark.subject import Subject, device_name
from hybridvla_core.policy.inference.dual_path import DualPath
from hybridvla_core.policy.inference.tensors import PredictionInputs


def machine(device: torch.device) -> Dict[str, Any]:
    """Returns the versions, and the card and its driver, or the processor and its threads."""
    found: Dict[str, Any] = {"device": device_name(device), "hybridvla": hybridvla_core.__version__,
                             "python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    if device.type == "cuda":
        found.update(cuda=torch.version.cuda, driver=_driver())
    else:
        found.update(threads=torch.get_num_threads(), capability=torch.backends.cpu.get_cpu_capability())
    return found


def _driver() -> str:
    try:
        asked = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True,
                               text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return asked.stdout.strip().splitlines()[0] if asked.stdout.strip() else "unknown"


def random_inputs(subject: Subject, seeds: Iterable[int]) -> Iterator[PredictionInputs]:
    """Yields images, words, states and noise drawn from each seed, for a model with random weights."""
    first = subject.inputs(subject.pixels())
    for seed in seeds:
        draw = torch.Generator().manual_seed(seed)

        def normal(like: torch.Tensor, draw: torch.Generator = draw) -> torch.Tensor:
            return torch.randn(like.shape, generator=draw).to(like.device, like.dtype)

        text = first.text.clone()
        count = subject.text.shape[1]
        text[:, :count] = torch.randint(3, 500, (1, count), generator=draw).to(text.device)
        yield PredictionInputs({kind: normal(views) for kind, views in first.pixels.items()}, text,
                               normal(first.state).clamp(-1, 1), normal(first.noise), first.lengths)


@torch.inference_mode()
def certify(path: DualPath, observations: Iterable[PredictionInputs]) -> Dict[str, Any]:
    """Compares few passes with plain greedy decoding on every observation, over all tokens.

    Args:
        path: Path under test.
        observations: Observations as batches of one.

    Returns:
        How many had the same tokens and the same decision of the gate; the largest differences (normalised action,
        confidence); and what differed although rounding cannot explain it. Rounding can if two best logits, or a mean
        confidence and the gate, are closer than the margins.
    """
    rows = [_compared(path, inputs) for inputs in observations]
    clear = [row for row in rows if not row["close"]]
    return {
        "predictions": len(rows), "same_tokens": sum(row["tokens"] for row in rows),
        "same_decisions": sum(row["decision"] for row in rows), "too_close_to_call": len(rows) - len(clear),
        "margins": {"logits": LOGIT_MARGIN, "gate": GATE_MARGIN},
        "different_beyond_margins": sum(not (row["tokens"] and row["decision"]) for row in clear),
        "largest_difference": {"action": max(row["action"] for row in rows),
                               "confidence": max((row["confidence"] for row in rows if row["tokens"]), default=None)},
        "passes": distribution([row["passes"] for row in rows]), "greedy_passes": path.config.action_dim}


def _compared(path: DualPath, inputs: PredictionInputs) -> Dict[str, Any]:
    """Compares both ways on one observation."""
    rule = path.gate.config
    few = path.run(inputs)
    assert few.denoised is not None and few.ids is not None and few.confidence is not None and few.passes is not None
    plain = plain_decoding(path.engine, inputs, path.steps, path.window)
    return {"tokens": bool(np.array_equal(plain.ids, few.ids[0])),
            "decision": rule.opens(plain.confidence) == rule.opens(few.confidence[0]),
            "action": float(np.abs(plain.denoised - few.denoised[0, 0]).max()),
            "confidence": float(np.abs(plain.confidence - few.confidence[0]).max()), "passes": int(few.passes[0]),
            "close": plain.close(rule)}
