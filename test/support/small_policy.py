"""A small random checkpoint, written as a complete folder, for tests that load one."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from hybridvla_core.checkpoints.config import CheckpointConfig, EnsembleConfig
from hybridvla_core.checkpoints.format import save_checkpoint
from hybridvla_core.contracts import Observation
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.presets import llama, preset
from hybridvla_core.training.tokenizer import build_tiny_tokenizer
from hybridvla_core.transforms.conventions import ActionConvention

CONVENTION = ActionConvention(
    arms=("arm",), translation="delta_base_frame", rotation="absolute_euler_xyz", rotation_reference_xyzw=(1.0, 0, 0, 0),
    gripper_sense="one_is_open", delta_base="measured", action_period_s=0.0, state_source="measured")
ENSEMBLE = EnsembleConfig.paper()
SCALE = {"q01": [-1.0] * 6 + [0.0], "q99": [1.0] * 6 + [1.0], "mask": [True] * 6 + [False]}
STATISTICS = {"set": {"action": SCALE, "proprio": SCALE}}


def small_model():
    config = preset("tiny")
    return replace(config, decoder=llama(64, 2, 2, 96, 832), projector=(64, 64, 64))


def write(folder, **changes):
    torch.manual_seed(3)
    model = HybridVLA(small_model()).initialise(0.2)
    config = CheckpointConfig(
        format=1, model=small_model(), convention=CONVENTION, cameras=("front",), image_strategy="resize-naive",
        ensemble=ENSEMBLE, ddim_steps=4, autoregressive_condition="denoised", statistics_key="set")
    save_checkpoint(folder, model.state_dict(), replace(config, **changes), STATISTICS,
                    build_tiny_tokenizer().to_str(), {"made": "by a test"}, torch.float16)
    return folder


def observation(stamp=7, **changes):
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    values = dict(images={"front": image}, instruction="put the red block on the green pad", state=np.zeros(7), stamp_ns=stamp)
    return Observation(**{**values, **changes})
