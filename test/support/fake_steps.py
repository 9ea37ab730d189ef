"""Steps of the recipes for a GPU, on a fake GPU. It prints what each stage did, one line of JSON per stage."""
from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import fake_gpu
import numpy as np
import torch

from hybridvla_core.configuration import from_mapping, read_mapping
from hybridvla_core.model.presets import preset
from hybridvla_core.paths import ROOT
from hybridvla_core.training.augment import draw_augmentation
from hybridvla_core.training.distributed import Processes
from hybridvla_core.training.hybrid.batch import Batch, Mentions
from hybridvla_core.training.hybrid.config import TrainingConfig
from hybridvla_core.training.hybrid.export import gather
from hybridvla_core.training.hybrid.loop import Hooks, StageLoop
from hybridvla_core.training.hybrid.run import _build
from hybridvla_core.training.hybrid.state import Progress, moments_of
from hybridvla_core.training.speed import random_batch

SIZE = 8
#: Recipe, its stages under test, changes of the recipe, and changes of the model. Each runs on a small model of the same kind.
CASES = [("suite_gpu", ("see", "ground", "act"), {}, {}), ("dual_gpu", ("act",), {}, {"action_dim": 14}),
         ("tiny_gpu", ("act",), {"precision": "float32"}, {}), ("lora", ("tune",), {"augment": "released"}, {}),
         ("paper", ("finetune",), {"micro_batch": 4}, {})]


class Alone(Processes):
    """A single process that moves nothing to the device, because `fake_gpu.move` does."""

    def shard(self, module, blocks, bfloat16):
        return module


def batch_of(config, model, even):
    """Return a random batch with everything that the recipe uses; with `even`, all texts have the same length."""
    found = random_batch(model, SIZE, config.objective.repeats, 1)
    lengths, moments, names = found.lengths.clone(), SIZE // config.labels, 5
    lengths[0] -= 0 if even else 2
    drawn = draw_augmentation(config.augment, (moments, model.views), np.random.default_rng(0))
    spans, where = torch.full((names,), 2), torch.rand(names, 5)
    mentions = Mentions(torch.arange(names), spans, spans + 2, torch.rand(names, model.views * model.patches) > 0.8, where[:, :3],
                        where[:, 3:])
    return replace(found, lengths=lengths, pixels={key: pictures[:moments] for key, pictures in found.pixels.items()},
                   augment=None if config.augment == "none" else torch.from_numpy(drawn),
                   mentions=mentions if config.grounding.used else None,
                   subtasks=torch.arange(SIZE) % 3 - 1 if config.grounding.subtask else None)


def stage(config, model, number):
    """Run two steps of a stage; return what the second did, and what validation and export gave."""
    start = SimpleNamespace(
        model=model, base=None, subtasks=("one", "two") if config.grounding.subtask else (),
        checkpoint=SimpleNamespace(image_strategy="resize-naive", cameras=config.cameras or ("front",)))
    processes, gpu = Alone(0, 1, torch.device(fake_gpu.NAME, 0)), fake_gpu.FakeGpu()
    uneven, even = batch_of(config, model, False), batch_of(config, model, True)
    feed = SimpleNamespace(validation=lambda size: [[(0, 0)]],
                           validation_batch=lambda number, frames: replace(even, augment=None))
    objective = _build(config, start, number, processes)
    objective.counts = fake_gpu.real(objective.counts)      # counts of the batch on the host
    with gpu.on():
        loop = StageLoop(fake_gpu.move(objective), config, number, feed, processes, None, None, Hooks())
        loop._start(Progress(0, 0, 0, 0.0, 0, (), (), {}), False)
        waits = []
        for step, batch in enumerate((even, uneven)):
            gpu.waits.clear()
            values = loop._step(batch, step)
            waits.append(list(gpu.waits))
        validated = loop.validate()
        exported = gather(objective, processes, start)
        of_average = {f"{value.device.type} {value.dtype}" for value in loop.average.values()}
    return {"stage": config.stages[number].name, "terms": sorted(loop.terms), "values": sorted(values),
            "validated": sorted(validated), "waits": waits[-1],
            "moments": len(moments_of(objective, loop.optimizer)), "average": sorted(of_average),
            "exported": sorted({value.device.type for value in exported.values()})}


def main():
    fake_gpu.register()
    parts = Batch.parts
    Batch.parts = lambda self, size: iter(fake_gpu.real(lambda: list(parts(self, size)))())
    for name, stages, changes, of_model in CASES:
        config = from_mapping(TrainingConfig, {**read_mapping(ROOT / f"config/training/{name}.yaml"), **changes}, name)
        model = preset("ablation", views=max(1, len(config.cameras)), **of_model)
        layers = 1 + max(config.grounding.attention_layers, default=0)
        model = replace(model, decoder=replace(model.decoder, layers=layers),
                        towers=tuple(replace(tower, depth=2) for tower in model.towers))
        for number, wanted in enumerate(config.stages):
            if wanted.name in stages:
                said = {"recipe": name, "precision": config.precision, **stage(config, model, number)}
                print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
