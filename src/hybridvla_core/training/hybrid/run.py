"""A run from files to a checkpoint: what `hybridvla train` calls."""
from __future__ import annotations

import dataclasses
import gc
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import torch

from hybridvla_core.checkpoints.weights import load_into, weight_files
from hybridvla_core.data.lerobot.held_out import trained_on_elsewhere
from hybridvla_core.data.lerobot.layout import tasks_named
from hybridvla_core.data.mixture import Mixture, MixtureConfig, by_size, mix
from hybridvla_core.errors import ConfigurationError, HybridVLAError
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.training.distributed import Processes
from hybridvla_core.training.hybrid.config import TrainingConfig
from hybridvla_core.training.hybrid.export import check_place, export, gather, so_far
from hybridvla_core.training.hybrid.feed import Feed, deaths_named
from hybridvla_core.training.hybrid.grounding.heads import GroundingHeads
from hybridvla_core.training.hybrid.loop import Hooks, StageLoop
from hybridvla_core.training.hybrid.objective import HybridObjective
from hybridvla_core.training.hybrid.stages import OF_THE_CHANNELS, choose_parameters
from hybridvla_core.training.hybrid.start import Start, prepare
from hybridvla_core.training.hybrid.state import Progress, StepError, Store
from hybridvla_core.training.lora import add_adapters
from hybridvla_core.training.progress import Bar, RunLog
from hybridvla_core.transforms.prompt import PromptEncoder

LOGGER = logging.getLogger(__name__)
#: Most sentences that a checkpoint lists as those it was trained with; it lists none if there are more.
MOST_INSTRUCTIONS = 1000
#: Keys that may change when a run resumes, because they do not change what it computes.
FREE = ("workers", "keep_frames", "log_every", "save_every", "validate_every", "validation_frames", "export", "demonstrations",
        "confidence_window_bins")
#: Keys that are newer than some runs, with the value that those runs had in effect, so that such a run can resume.
LATER = {"labels": 1, "grounding.attention": 0.0, "grounding.attention_layers": (), "grounding.attention_heads": 1,
         "grounding.subtask": 0.0, "grounding.place_views": (), "grounding.turns": 0.0, "statistics_tail": 0.01, "draw": "rows",
         "embedders": "init"}


@dataclass(frozen=True)
class Request:
    """Request for a training run.

    Attributes:
        config: The recipe.
        data: Folders of data sets.
        work: Folder of log and state; a run that finds its state there resumes.
        out: Checkpoint folder to write; new, empty, or with a checkpoint and nothing else, which is replaced.
        init: Checkpoint folder to start from.
        mixture: Weights of the data sets; without it, all frames are equally frequent.
        device: `cpu` or `cuda`.
        threads: CPU threads of each process.
        tensorboard: Whether TensorBoard's files are written too.
        evaluate: Evaluates a checkpoint folder; its result goes into the log.
        evaluate_every: Steps between two evaluations; 0 for never.
        seconds: Time after which the run saves its state, writes the checkpoint as it is, and ends, s; 0 for no limit.
    """

    config: TrainingConfig
    data: Tuple[Path, ...]
    work: Path
    out: Path
    init: Optional[Path] = None
    mixture: Optional[MixtureConfig] = None
    device: str = "cpu"
    threads: int = 2
    tensorboard: bool = False
    evaluate: Optional[Callable[[Path], Mapping[str, Any]]] = None
    evaluate_every: int = 0
    seconds: float = 0.0


def train(request: Request) -> Dict[str, Any]:
    """Runs all stages and writes the checkpoint; started again with the same `work` folder, it resumes the same run.

    Args:
        request: Request for the run.

    Returns:
        The result for machines; `finished` is False if `seconds` ended the run before its last step.

    Raises:
        HybridVLAError: Something does not fit or cannot be read, or a number is not finite; the message names it.
    """
    deadline = time.monotonic() + request.seconds
    check_place(request.out, request.work, request.data, request.init)
    torch.set_num_threads(request.threads)
    processes = Processes.start(request.device)
    try:
        return _train(request, processes, deadline)
    finally:
        processes.stop()


def _train(request: Request, processes: Processes, deadline: float) -> Dict[str, Any]:
    config = request.config
    for stage in config.stages:
        moments = config.batch_of(stage) // config.labels
        if moments % processes.world:
            raise ConfigurationError(f"stage {stage.name}: {moments} moments a step ({config.labels} samples each) cannot be "
                                     f"shared by {processes.world} processes equally; choose a multiple")
    start = prepare(config, request.data, request.init, () if request.mixture is None else request.mixture.views)
    mixture = _mixture(request, start, processes)
    prompts = PromptEncoder(start.tokenizer, start.model.sequence)
    for frames in start.sets:
        frames.check_texts(prompts)
    if config.keep_frames:
        _keep(start, request.work / "pictures", processes, config.workers)
    _warn_of_words(start)
    _warn_of_labels(config, start)
    if processes.first:
        for sentence in trained_on_elsewhere([frames.dataset for frames in start.sets]):
            LOGGER.warning("%s", sentence)
    feed = Feed(start.sets, mixture, prompts, start.checkpoint, config, processes.rows, start.subtasks)
    store = Store(request.work / "state", processes)
    origin = _origin(request, start)
    hooks = replace(_hooks(request, start, processes),
                    stop=(lambda: time.monotonic() >= deadline) if request.seconds else None)
    loop: Optional[StageLoop] = None
    while loop is None:
        try:
            progress = store.last() or Progress(0, 0, 0, 0.0, 0, (), (), origin)
            _check_origin(progress.origin, origin, request.work)
            loop, progress = _stages(request, start, feed, processes, store, hooks, progress)
        except StepError as error:      # the model is built anew: a damaged step may have filled part of it
            store.leave_out(error)
        gc.collect()    # torch's errors keep the earlier model alive in a reference cycle; there may be no room for two
    objective = loop.objective
    result: Dict[str, Any] = {"checkpoint": str(request.out), "steps": progress.total, "samples": progress.samples,
                              "seconds": round(progress.seconds, 1), "finished": progress.stage == len(config.stages)}
    with loop.averaged():
        tensors = gather(objective, processes, start)
        processes.first_alone(lambda: result.update(
            manifest_sha256=export(request.out, tensors, config, so_far(config, start, progress),
                                   _provenance(request, start, progress))))
    return result


def _stages(request: Request, start: Start, feed: Feed, processes: Processes, store: Store, hooks: Hooks, progress: Progress
            ) -> Tuple[StageLoop, Progress]:
    """Runs the stages from where `progress` is; returns the last one that ran, and its progress."""
    config = request.config
    if progress.total and processes.first:
        LOGGER.info("continuing after step %d (stage %d, step %d)", progress.total, progress.stage, progress.step)
    log = RunLog(request.work, progress.total, request.tensorboard) if processes.first else None
    # A finished run builds its last stage again, to export its last state.
    for number in range(min(progress.stage, len(config.stages) - 1), len(config.stages)):
        loop = StageLoop(_build(config, start, number, processes), config, number, feed, processes, store, log, hooks)
        progress = loop.run(progress)
        if progress.stage <= number:
            break
    return loop, progress


def _build(config: TrainingConfig, start: Start, number: int, processes: Processes) -> HybridObjective:
    """Builds the objective of a stage as it was before the first step of the run, sharded over the processes."""
    torch.manual_seed(config.seed)
    model = HybridVLA(start.model)
    if start.base is None:
        model.initialise()
    else:
        load_into(model, start.base.folder, weight_files(start.base.folder),
                  tuple(f"{name}." for name in OF_THE_CHANNELS) if config.embedders == "new" else ())
    decoder = start.model.decoder
    if processes.device.type == "cpu" and decoder.hidden <= 512:
        model.vision_backbone.use_fused_attention(False)
    model.llm.checkpointing = config.gradient_checkpointing
    if config.lora is not None:
        add_adapters(model.llm, config.lora, config.seed)
    torch.manual_seed(config.seed + 1)
    heads = None
    if config.grounding.used:
        config.grounding.fit(decoder.layers, decoder.heads)
        heads = GroundingHeads(config.grounding, start.model.vision_width, decoder.hidden, start.model.action_dim,
                               len(start.subtasks), config.grounding.placing(start.checkpoint.cameras, start.model.patches))
    objective = HybridObjective(model, config.objective, start.checkpoint.image_strategy, heads)
    choose_parameters(objective, config.stages[number], decoder.layers, config.lora is not None)
    processes.shard(objective, [*model.vision_backbone.blocks(), *model.llm.model.layers], config.precision == "bfloat16")
    return objective.train()


def _mixture(request: Request, start: Start, processes: Processes) -> Mixture:
    sizes = {frames.name: frames.size(request.config.draw) for frames in start.sets}
    if request.mixture is None:
        return by_size(sizes)
    mixture, absent = mix(request.mixture, list(sizes), "the mixture")
    if processes.first:
        LOGGER.info("shares of the draws (%s):\n%s", request.mixture.source or "as given", mixture.table(absent))
    return mixture


def _keep(start: Start, folder: Path, processes: Processes, workers: int) -> None:
    """Decodes all pictures on the first process; the others read what it wrote."""
    for turn in (True, False):
        if processes.first == turn:
            for frames in start.sets:
                bar = Bar(f"pictures of {frames.name}", frames.pictures_kept, 0, turn)
                with deaths_named():
                    frames.keep(folder, lambda count, bar=bar: bar.add(count, {}), workers)  # type: ignore[misc]
                bar.close()
        processes.wait()


def _warn_of_words(start: Start) -> None:
    unknown = start.tokenizer.token_to_id("<unk>")
    texts = sorted({text for frames in start.sets for text in frames.dataset.tasks.values()})
    strange = sorted({word for text in texts for word in text.split()
                      if unknown is not None and unknown in start.tokenizer.encode(word, add_special_tokens=False).ids})
    if strange:
        LOGGER.warning("the tokenizer does not know %s: the model cannot tell them apart", ", ".join(strange[:12]))


def _warn_of_labels(config: TrainingConfig, start: Start) -> None:
    for frames in start.sets:
        if frames.most < config.labels:
            LOGGER.warning("labels: %d, and no picture of %s has more than %d sentence(s): its rows appear several times in a "
                           "step, each time with different noise", config.labels, frames.name, frames.most)


def _origin(request: Request, start: Start) -> Dict[str, Any]:
    """Returns everything that determines the numbers of a run, part by part."""
    config = dataclasses.asdict(request.config)
    said = start.checkpoint      # values that the recipe leaves to the checkpoint count as well
    config.update(chunk=said.model.chunk, image_strategy=said.image_strategy, ddim_steps=said.ddim_steps)
    found = {"configuration": _plain({key: value for key, value in config.items() if key not in FREE}),
             "checkpoint": None if start.base is None else start.base.manifest_sha256,
             "data": {frames.name: frames.dataset.identity() for frames in start.sets},
             "mixture": None if request.mixture is None else _plain(dataclasses.asdict(request.mixture))}
    # Older runs normalised such channels as constant ones; numbers must not change their meaning in the middle of a run.
    return {**found, "statistics": list(start.widened)} if start.widened else found


def _plain(value: object, name: str = "") -> object:
    """Returns a value as JSON restores it, without keys unknown to older runs. `name`: path of the value, ending in a dot."""
    if isinstance(value, dict):
        return {key: _plain(item, f"{name}{key}.") for key, item in value.items() if (f"{name}{key}", item) not in LATER.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _check_origin(before: Mapping[str, Any], now: Mapping[str, Any], work: Path) -> None:
    for part, value in now.items():
        was = before.get(part)
        if part == "configuration" and isinstance(was, dict):       # of an older version, which had fewer free keys
            was = {key: item for key, item in was.items() if key not in FREE}
        if was != value:
            keys = [key for key in {**was, **value} if was.get(key) != value.get(key)] if isinstance(value, dict) and \
                isinstance(was, dict) else []
            detail = f" ({', '.join(keys)})" if keys else ""
            raise HybridVLAError(f"{work}: the run in it was begun with another {part}{detail}; give another --work folder, or "
                                 "what it was begun with")
    order = list(before["data"])      # affects draws, normalisation and default cameras; mappings compare equal without it
    if order != list(now["data"]):
        raise HybridVLAError(f"{work}: the run in it was begun with its data sets in another order ({', '.join(order)}); give "
                             "another --work folder, or --data in that order")


def _provenance(request: Request, start: Start, progress: Progress) -> Dict[str, Any]:
    found: Dict[str, Any] = {"trained_by": "hybridvla train", "seed": request.config.seed, "steps": progress.total,
                             "samples": progress.samples, "seconds": round(progress.seconds),
                             "data": {frames.name: len(frames.train) for frames in start.sets}}
    if progress.stage < len(request.config.stages):
        found["unfinished"] = True
    texts = sorted({text for frames in start.sets for text in frames.dataset.tasks.values()})
    if len(texts) <= MOST_INSTRUCTIONS:      # tells an evaluation which tasks the checkpoint was trained for
        found["instructions"] = texts
    named = [tasks_named(frames.dataset.ours.get("episodes", [])) for frames in start.sets]
    if all(named):
        found["tasks"] = sorted({task for tasks in named for task in tasks})
    if start.base is not None:
        found["init"] = start.base.manifest_sha256
    return found


def _hooks(request: Request, start: Start, processes: Processes) -> Hooks:
    if request.evaluate is None:
        return Hooks()
    evaluation = request.evaluate

    def evaluate(total: int, objective: HybridObjective) -> Mapping[str, Any]:
        tensors = gather(objective, processes, start)
        result: Dict[str, Any] = {}

        def episodes() -> None:
            folder = request.work / "evaluations" / f"step-{total:09d}"
            export(folder, tensors, request.config, start, {"trained_by": "hybridvla train", "steps": total})
            result.update(evaluation(folder))

        processes.first_alone(episodes)
        return result

    return Hooks(evaluate, request.evaluate_every)
