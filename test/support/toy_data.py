"""A small data set on disk for tests that train; its pictures show the action."""
from __future__ import annotations

import dataclasses
import json

import numpy as np
from small_models import tiniest
from small_policy import CONVENTION

from hybridvla_core.configuration import from_mapping
from hybridvla_core.data.lerobot.layout import Description
from hybridvla_core.data.lerobot.writer import DatasetWriter
from hybridvla_core.data.sample import GroundedObject
from hybridvla_core.training.hybrid.config import TrainingConfig

NAMES = tuple(f"c{i}" for i in range(7))
#: Every loss term that uses grounding labels.
GROUNDED = dict(patches=0.3, pointing=0.3, places=0.3, attention=0.3, attention_layers=[0], attention_heads=2, state_action=0.3,
                subtask=0.3)
SHORT = [dict(name="act", steps=2, train="full", learning_rate=1e-3)]
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 230)}


def describe(**changes):
    values = dict(name="toy", fps=10.0, views={"front": (32, 32)}, state_names=NAMES, action_names=NAMES, grippers=(6,),
                  labels="next_pose", robot="toy", convention=dataclasses.asdict(CONVENTION), grounded=True, grid=2,
                  subtasks=True)
    return Description(**{**values, **changes})


def write(folder, episodes=4, frames=6, seed=0, patches=4, sentences=1, still=(), rare=(), **changes):
    """Write episodes in which a coloured square shows every arm where to go. The last episode is for validation. With several
    `sentences`, each moment appears in that many rows. State channels in `still` do not move; those of state and action in `rare`
    move in the first frame alone."""
    if sentences > 1:
        changes = {"moments": True, "labels": "next_keyframe", **changes}
    description = describe(**changes)
    arms = len(description.action_names) // 7
    rng = np.random.default_rng(seed)
    with DatasetWriter(folder, description) as out:
        for number in range(episodes):
            with out.episode(f"episode {number}", True, "validation" if number == episodes - 1 else "train") as episode:
                for frame in range(frames):
                    colour = list(COLOURS)[int(rng.integers(3))]
                    corner = int(rng.integers(4))
                    image = np.full((32, 32, 3), 90, np.uint8)
                    top, left = 16 * (corner // 2), 16 * (corner % 2)
                    image[top:top + 16, left:left + 16] = COLOURS[colour]
                    place = np.array([0.4 + 0.2 * (corner // 2), -0.1 + 0.2 * (corner % 2), 0.05])
                    state = rng.uniform(-0.5, 0.5, 7)
                    state[list(still)] = 0.1
                    action = np.concatenate([place - [0.5, 0.0, 0.0], rng.uniform(-0.02, 0.02, 3), [corner % 2]])
                    state[list(rare)] = action[list(rare)] = 0.9 if number == frame == 0 else 0.2
                    state, action = np.tile(state, arms), np.tile(action, arms)
                    text = f"put the {colour} block on the pad"
                    begin = text.index(colour)
                    named = GroundedObject(((begin, begin + len(colour) + 6),), {
                        view: np.array([(corner + number) % patches]) for number, view in enumerate(description.views)}, place,
                        0.2 * corner if corner else None, 4)
                    images = {view: np.ascontiguousarray(np.broadcast_to(image[:1, :1], (*size, 3)) if size != (32, 32)
                                                        else image)
                              for view, size in description.views.items()}
                    episode.add(images, state, action, text, grounding=[named] if description.grounded else [],
                                subtask=f"corner {corner}")
                    for number in range(1, sentences):
                        episode.add(images, state, action + 0.1 * number, text + number * " then", same_moment=True,
                                    grounding=[named] if description.grounded and number % 2 else [])
        out.finish()
    return folder


def two_arms():
    """Return the arguments of `write` for data of two arms."""
    names = tuple(f"c{i}" for i in range(14))
    return dict(state_names=names, action_names=names, grippers=(6, 13),
                convention={**dataclasses.asdict(CONVENTION), "arms": ["right", "left"]})


def config(**changes):
    """Return a recipe of a few steps on the smallest model."""
    values = dict(recipe="hybrid", preset="tiniest", seed=3, batch=8, workers=0, ema=0.9, save_every=2, validate_every=4,
                  log_every=1, validation_frames=6, objective=dict(repeats=2),
                  stages=[dict(name="act", steps=6, train="full", learning_rate=1e-3)])
    return from_mapping(TrainingConfig, {**values, **changes}, "a test")


def go(folder, *data, init=None, **changes):
    """Trains two steps with the recipe `config(**changes)`; its work and the checkpoint `out` are in `folder`."""
    from hybridvla_core.training.hybrid.run import Request, train

    recipe = config(**{**dict(stages=SHORT, validation_frames=2, validate_every=2), **changes})
    return train(Request(recipe, data, folder / "work", folder / "out", threads=1, init=init))


def origins(folder):
    """Return what the states of the run in `folder` say that it was begun with, at least one."""
    found = [json.loads(state.read_text())["origin"] for state in (folder / "work/state").glob("*/run.json")]
    assert found, f"no state below {folder}"
    return found


def feed(folder, recipe):
    """Return the feed of a recipe for the smallest model on a small data set in `folder`. Call `add_preset` first."""
    from hybridvla_core.data.mixture import by_size
    from hybridvla_core.training.hybrid.feed import Feed
    from hybridvla_core.training.hybrid.start import prepare
    from hybridvla_core.transforms.prompt import PromptEncoder

    data = folder / "toy" if (folder / "toy").is_dir() else write(folder / "toy")
    start = prepare(recipe, (data,), None)
    mixture = by_size({frames.name: len(frames.train) for frames in start.sets})
    return Feed(start.sets, mixture, PromptEncoder(start.tokenizer, start.model.sequence), start.checkpoint, recipe,
                lambda batch: slice(0, batch), start.subtasks)


def add_preset(monkeypatch=None, layers=1):
    """Makes `tiniest` a preset whose decoder has this many layers."""
    from hybridvla_core.model import presets

    if monkeypatch is None:
        presets.PRESETS["tiniest"] = tiniest
    else:
        monkeypatch.setitem(presets.PRESETS, "tiniest", lambda *wanted, **named: _deeper(tiniest(*wanted, **named), layers))


def _deeper(config, layers):
    return dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, layers=layers))
