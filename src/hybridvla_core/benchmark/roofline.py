"""Measures what the device can do, and computes the least time that each stage could take on it.

A stage takes at least the time to read its weights (and the cache) once per pass, and at least the time of its matrix
products (Williams, Waterman and Patterson 2009, "Roofline").
"""
from __future__ import annotations

import time
from typing import Any, Callable, Dict, Union

import torch

from hybridvla_core.benchmark.subject import Subject
from hybridvla_core.model.sequence import prefix_length
from hybridvla_core.model.shrunk.choose import size_of


def measure_device(dtype: torch.dtype, device: torch.device, repeats: int = 5) -> Dict[str, float]:
    """Measures how fast a device reads, copies and multiplies.

    Args:
        dtype: Number format of the matrices.
        device: Device to measure.
        repeats: Repeats of each measurement; the best counts.

    Returns:
        `bandwidth_gb_s` for reading 512 MB, which no cache holds in full; `copy_gb_s` for copying them, counting bytes read and
        written; `matrix_tflop_s` for a square matrix product in `dtype`.
    """
    numbers = torch.ones(2 ** 27, dtype=torch.float32, device=device)
    reading = _best(lambda: numbers.sum(), device, repeats)
    target = torch.empty_like(numbers)
    copying = _best(lambda: target.copy_(numbers), device, repeats)
    side = 8192 if device.type == "cuda" else 1536
    left = torch.randn(side, side, dtype=torch.float32, device=device).to(dtype)
    product = _best(lambda: left @ left, device, repeats)
    return {"bandwidth_gb_s": round(numbers.numel() * 4 / reading / 1e9, 2),
            "copy_gb_s": round(2 * numbers.numel() * 4 / copying / 1e9, 2),
            "matrix_tflop_s": round(2 * side ** 3 / product / 1e12, 4)}


def _best(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def stage_work(subject: Subject, passes: float) -> Dict[str, Dict[str, float]]:
    """Returns bytes read and floating-point operations of every stage of the full prediction, attention's products included."""
    config, path = subject.config, subject.path
    decoder, size = config.decoder, torch.tensor([], dtype=subject.dtype).element_size()
    model = path.model
    sizes = {name: size_of(module) for name, module in (
        ("vision", model.vision_backbone), ("projector", model.projector), ("layers", model.llm.model.layers),
        ("head", model.llm.lm_head))}
    count, held = {name: pair[0] for name, pair in sizes.items()}, {name: pair[1] for name, pair in sizes.items()}
    patches, length = config.views * config.patches, prefix_length(config, subject.text.shape[1])
    rows, branch = 1 + config.chunk, 2 + config.chunk + len(config.sequence.after_eod) + config.action_dim - 1
    cache = 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * length * size

    def decoder_pass(n: int, head_rows: int = 0) -> Dict[str, float]:
        attention = 4 * decoder.layers * n * length * decoder.heads * decoder.head_dim
        return {"bytes": held["layers"] + (held["head"] if head_rows else 0) + cache,
                "flops": 2 * n * count["layers"] + attention + 2 * head_rows * count["head"]}

    def opening(n: int) -> Dict[str, float]:
        """Returns the work of the prefix and first denoising rows; the last block makes only the prefix's keys and values."""
        whole, kept = decoder_pass(n), decoder.hidden * (decoder.heads + 2 * decoder.kv_heads) * decoder.head_dim
        return {"bytes": whole["bytes"], "flops": whole["flops"] - 2 * length * (count["layers"] / decoder.layers - kept)}

    towers = sum(4 * (t.depth - 1) * t.patches ** 2 * t.width for t in config.towers) * config.views
    rides = path.ride_steps
    plain, riding, proving = decoder_pass(rows), decoder_pass(rows + branch), decoder_pass(branch, config.action_dim)
    return {
        "vision": {"bytes": held["vision"] + held["projector"],
                   "flops": 2 * patches * (count["vision"] + count["projector"]) + towers},
        "prefix": opening(length + rows),
        "denoise": {k: plain[k] * (path.steps - 1 - rides) + riding[k] * rides for k in plain},
        "decode": {k: proving[k] * passes for k in proving}}


def roofline(subject: Subject, device: Dict[str, float], stages: Dict[str, Dict[str, float]], passes: float) -> Dict[str, Any]:
    """Returns each stage's bound beside its median, and the ratio of the two."""
    result = {}
    for name, work in stage_work(subject, passes).items():
        reading = work["bytes"] / max(device["bandwidth_gb_s"], device["copy_gb_s"]) / 1e6
        computing = work["flops"] / device["matrix_tflop_s"] / 1e9
        bound = round(max(reading, computing), 3)
        entry: Dict[str, Union[float, str]] = {"bound_ms": bound, "by": "bandwidth" if reading > computing else "arithmetic",
                 "megabytes": round(work["bytes"] / 1e6, 1), "gflop": round(work["flops"] / 1e9, 3)}
        if name in stages:
            entry["measured_ms"] = stages[name]["median_ms"]
            entry["times_bound"] = round(stages[name]["median_ms"] / bound, 2)
        result[name] = entry
    return result
