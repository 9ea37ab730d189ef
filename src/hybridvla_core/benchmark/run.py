"""One run: warm-up, then rounds that time every mode once, in rotating order, so that drift affects all modes alike."""
from __future__ import annotations

import functools
import importlib.util
import resource
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch

from hybridvla_core.benchmark.modes import Lap, Modes, Passes, summary
from hybridvla_core.benchmark.operations import count_operations
from hybridvla_core.benchmark.roofline import measure_device, roofline
from hybridvla_core.benchmark.subject import Subject, device_name
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.model.shrunk.choose import size_of
from hybridvla_core.policy.inference.stage_clock import StageClock

WARM_UP = 2
Call = Callable[[Lap, Optional[int]], Dict[str, int]]
Times = Dict[str, List[float]]


def _call(modes: Modes, name: str, lap: Lap, passes: Optional[int]) -> Dict[str, int]:
    return modes.run(name, passes, lap)


def load_callable(source: str) -> Callable[[Dict[str, Any]], Callable[[], object]]:
    """Loads `FILE.py:name`: called once with the subject's description, it returns a callable that makes one prediction."""
    file, _, name = source.partition(":")
    if not name or not Path(file).is_file():
        raise ConfigurationError(f"--compare {source}: use FILE.py:NAME with an existing file")
    spec = importlib.util.spec_from_file_location("compared", file)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"--compare {source}: {file} is no Python file; use FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        raise ConfigurationError(f"--compare {source}: {file} has no callable {name}")
    found: Callable[[Dict[str, Any]], Callable[[], object]] = getattr(module, name)
    return found


def description(subject: Subject) -> Dict[str, Any]:
    """Returns what another implementation gets: weights, configuration and the same inputs."""
    return {"config": subject.config, "state_dict": subject.path.model.state_dict(), "dtype": subject.dtype,
            "device": subject.device, "steps": subject.path.steps, "images": subject.images, "text_ids": subject.text,
            "state": subject.state, "noise": subject.noise[:, 0]}


def run(subject: Subject, rounds: int, passes: Optional[Passes], compare: Optional[str] = None,
        progress: Callable[[int], None] = lambda done: None) -> Dict[str, Any]:
    """Returns the result for machines. passes: pass counts for random weights; None: a checkpoint's own."""
    modes, loading = Modes(subject), 0
    if subject.device.type == "cuda":
        loading = torch.cuda.max_memory_allocated(subject.device)
    calls: Dict[str, Call] = {name: functools.partial(_call, modes, name) for name in modes.names}
    if compare:
        other = load_callable(compare)(description(subject))

        def compared(lap: Lap, count: Optional[int]) -> Dict[str, int]:
            other()
            return {}

        calls["compared"] = compared
    drawn: Sequence[Optional[int]] = passes.rounds(rounds) if passes else [None] * rounds
    times: Dict[str, List[float]] = {name: [] for name in calls}
    worked: Times = {name: [] for name in calls}
    stages: Dict[str, Dict[str, List[float]]] = {name: {} for name in calls}
    counts: List[int] = []
    device = measure_device(subject.dtype, subject.device)
    if subject.device.type == "cuda":       # loading and measuring the device are not part of a prediction
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(subject.device)
    names = list(calls)
    for turn in range(-WARM_UP, rounds):
        for shift in range(len(names)):
            name = names[(turn + shift) % len(names)]
            work, clock = time.process_time(), StageClock(subject.device)
            extra = calls[name](clock.lap, drawn[max(turn, 0)])
            clock.lap("end")
            laps = clock.per(1)
            if turn < 0:
                continue
            times[name].append(sum(laps.values()))
            worked[name].append((time.process_time() - work) * 1e3)
            for stage, value in laps.items():
                if stage != "end":
                    stages[name].setdefault(stage, []).append(value)
            if name == "full":
                counts.append(extra["passes"])
        progress(turn + 1)
    result = _result(subject, times, worked, stages, counts, device, passes)
    if loading:
        result["memory"]["loading_peak_mb"] = round(loading / 1e6, 1)
    return result


def _over_diffusion(times: Times, counts: List[int], usual: Callable[[Sequence[float]], float]) -> float:
    """Divides the time of a full prediction by the time of diffusion alone.

    A plain median would ignore the rarer pass counts, so it takes the typical time at each count.

    Args:
        times: Times of `full` and `diffusion`, one per round.
        counts: Passes of each full prediction.
        usual: Gives the typical value of several times.

    Returns:
        The mean of the typical times of all full predictions, divided by the typical time of diffusion.
    """
    by_count = {n: [t for t, c in zip(times["full"], counts) if c == n] for n in set(counts)}
    full = sum(usual(values) * len(values) for values in by_count.values()) / len(counts)
    return full / usual(times["diffusion"])


def _result(subject: Subject, times: Times, worked: Times, stages: Dict[str, Times], counts: List[int], device: Dict[str, float],
            passes: Optional[Passes]) -> Dict[str, Any]:
    modes: Dict[str, Dict[str, Any]] = {
        name: {**summary(values), "stages": {stage: summary(laps) for stage, laps in stages[name].items()}}
        for name, values in times.items()}
    for name, values in times.items():
        modes[name]["fastest_ms"] = round(min(values), 3)
    median = {name: mode["median_ms"] for name, mode in modes.items()}
    over = _over_diffusion(times, counts, statistics.median)
    modes["full"]["mean_of_medians_ms"] = round(over * statistics.median(times["diffusion"]), 3)
    ratios = {"full_over_diffusion": round(over, 4),
              "kv_cache_speedup": round(median["diffusion_no_cache"] / median["diffusion"], 4),
              "plain_over_full": round(median["full_plain"] / median["full"], 4)}
    # On a machine with other load, the fastest of many rounds and the processor time reflect the work best.
    least = {name: min(values) for name, values in times.items()}
    ratios["full_over_diffusion_of_fastest"] = round(_over_diffusion(times, counts, min), 4)
    ratios["kv_cache_speedup_of_fastest"] = round(least["diffusion_no_cache"] / least["diffusion"], 4)
    if subject.device.type == "cpu":
        for name, values in worked.items():
            modes[name]["processor_ms"] = round(statistics.median(values), 3)
        ratios["full_over_diffusion_of_processor"] = round(_over_diffusion(worked, counts, statistics.median), 4)
        ratios["kv_cache_speedup_of_processor"] = round(
            modes["diffusion_no_cache"]["processor_ms"] / modes["diffusion"]["processor_ms"], 4)
    if "compared" in median:
        ratios["compared_over_full"] = round(median["compared"] / median["full"], 4)
    path, compiled = subject.path, subject.path.model.llm.compiled
    numbers, weights = size_of(path.model)
    cache = sum(2 * space.cache.keys.numel() * space.cache.keys.element_size() for space in path._spaces.values())
    memory = {"weights_mb": round(weights / 1e6, 1), "cache_mb": round(cache / 1e6, 2)}
    if subject.device.type == "cuda":
        memory["peak_mb"] = round(torch.cuda.max_memory_allocated(subject.device) / 1e6, 1)
        memory["peak_over_weights_and_cache"] = round(torch.cuda.max_memory_allocated(subject.device) / (weights + cache), 3)
    else:
        memory["process_peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1)
    mean_passes = sum(counts) / len(counts)
    return {
        "subject": subject.name, "counts": count_operations(subject),
        "device": device_name(subject.device), "dtype": str(subject.dtype).split(".")[-1],
        "views": subject.config.views, "threads": torch.get_num_threads(), "rounds": len(counts),
        "parameters_m": round(numbers / 1e6, 2), "precision": subject.precision, "ddim_steps": path.steps,
        "ride_steps": path.ride_steps, "compiled": compiled is not None and compiled.failed is None,
        "modes": modes, "ratios": ratios, "memory": memory,
        "passes": {"mean": round(mean_passes, 4), "counts": {str(n): counts.count(n) for n in sorted(set(counts))},
                   "drawn_from_mean": None if passes is None else round(passes.mean, 4)},
        "roofline": {**device, "stages": roofline(subject, device, modes["full"]["stages"], mean_passes)}}
