"""One training run from files to a checkpoint: what `hybridvla train` calls."""
from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np
import torch

from hybridvla_core.checkpoints.format import CheckpointConfig, read_checkpoint, read_weights, save_checkpoint
from hybridvla_core.cli.output import write_json
from hybridvla_core.configuration import load_file
from hybridvla_core.conventions import ActionConvention
from hybridvla_core.data.shards import ShardSet
from hybridvla_core.data.statistics import Statistics
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.presets import preset
from hybridvla_core.model.tiny_tokenizer import build_tiny_tokenizer
from hybridvla_core.policy.ensemble import EnsembleConfig
from hybridvla_core.policy.sequence import PromptEncoder
from hybridvla_core.training.batches import BatchSource, instruction_ids
from hybridvla_core.training.config import TrainingConfig
from hybridvla_core.training.heads import AuxiliaryHeads
from hybridvla_core.training.recipe import Recipe
from hybridvla_core.training.rollouts import batch_policy
from hybridvla_core.training.trainer import Trainer

LOGGER = logging.getLogger(__name__)

#: What the labels of the simulated rig mean; written into the checkpoint and checked by the rig.
CONVENTION = ActionConvention(
    arms=("arm",), translation="delta_base_frame", rotation="absolute_euler_xyz",
    rotation_reference_xyzw=(1.0, 0.0, 0.0, 0.0), gripper_sense="one_is_open", delta_base="measured",
    action_period_s=0.0, state_source="measured")
#: Roll, pitch and gripper are not scaled: the first two hardly move, the last is 0 or 1.
UNSCALED = (3, 4, 6)
STATISTICS_KEY = "sim_fr3_blocks"


def train(config_file: Path, data: Path, work: Path, out: Path, threads: int, summary: Optional[Path],
          init: Optional[Path] = None) -> Dict[str, Any]:
    """Run the recipe and write the checkpoint; started again with the same `work` folder it goes on where it was.

    init: a checkpoint folder to fine-tune. Its statistics stay, because they are what its numbers mean.
    """
    from hybridvla_sim.experts import PHASES
    from hybridvla_sim.kinematic import record_policy_episodes
    from hybridvla_sim.tasks import instructions

    config = load_file(TrainingConfig, config_file)
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    shards = ShardSet.from_folder(data)
    model, action, state, base = _start(config, shards, init)
    architecture = model.config
    model.vision_backbone.use_fused_attention(False)
    heads = AuxiliaryHeads(architecture.vision_width, architecture.decoder.hidden, architecture.action_dim, len(PHASES))
    tokenizer = build_tiny_tokenizer()
    prompts = PromptEncoder(tokenizer, architecture.sequence)
    grid = architecture.towers[0].image_size // architecture.towers[0].patch_size
    source = BatchSource(shards, config, action, state, instruction_ids(prompts.text_ids, instructions()), grid)
    trainer = Trainer(model, heads, config, work)
    for path in sorted(work.glob("rollouts-*.npz")):
        shards.append(path)
    statistics = {STATISTICS_KEY: {"action": action.as_json(), "proprio": state.as_json(), "num_transitions": len(shards)}}
    checkpoint = CheckpointConfig(
        format=1, model=architecture, convention=CONVENTION, cameras=("front",), image_strategy="resize-naive",
        ensemble=EnsembleConfig("mean", 0.96, 4, "so3", "diffusion"), ddim_steps=4, autoregressive_condition="denoised",
        statistics_key=STATISTICS_KEY) if base is None else base
    due = {int(share * config.policy.steps): index for index, share in enumerate(config.dagger.at)}

    def roll_out(step: int) -> None:
        """Let the averaged model act, and learn from what it gets into (Ross et al. 2011)."""
        if step not in due:
            return
        average = copy.deepcopy(model)
        average.load_state_dict(trainer.average.values)
        path = work / f"rollouts-{due[step]}.npz"
        policy = batch_policy(average, checkpoint, statistics, tokenizer, instructions(), seed=step)
        result = record_policy_episodes(policy, 500 + due[step], config.dagger.episodes, path,
                                        config.dagger.keyframes, config.dagger.switch_share)
        shards.append(path)
        LOGGER.info("step %d: rollouts %.2f successful, %.2f of the switched ones", step, result["success"], result["switched"])

    Recipe(model, heads, source, config).run(trainer, roll_out)
    provenance = {"command": f"hybridvla train --config {config_file} --data {data.name}", "seed": config.seed,
                  "samples": len(shards), "seconds": round(trainer.seconds)}
    if init is not None:
        provenance["init"] = read_checkpoint(init).manifest_sha256
    digest = save_checkpoint(out, trainer.average.values, checkpoint, statistics, tokenizer.to_str(), provenance, torch.float16)
    result = {"checkpoint": str(out), "manifest_sha256": digest, **provenance}
    write_json(summary, result)
    return result


def _start(config: TrainingConfig, shards: ShardSet, init: Optional[Path]
           ) -> Tuple[HybridVLA, Statistics, Statistics, Optional[CheckpointConfig]]:
    """The model before its first step, the statistics of actions and states, and what a fine-tuned checkpoint says."""
    if init is None:
        return (HybridVLA(preset(config.preset)).initialise(),
                *(Statistics.of(values.reshape(-1, values.shape[-1]).astype(np.float64), UNSCALED)
                  for values in (shards.column("target"), shards.column("state"))), None)
    checkpoint = read_checkpoint(init)
    model = HybridVLA(checkpoint.config.model)
    read_weights(checkpoint, model)
    entry = checkpoint.statistics[checkpoint.config.statistics_key]
    return model, Statistics.from_json(entry["action"]), Statistics.from_json(entry["proprio"]), checkpoint.config
