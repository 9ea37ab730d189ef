"""One training run from files to a checkpoint: what `hybridvla train` calls."""
from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any, Dict, Optional

import torch

from hybridvla_core.checkpoints.config import CheckpointConfig, EnsembleConfig
from hybridvla_core.checkpoints.format import save_checkpoint
from hybridvla_core.configuration import load_file
from hybridvla_core.data.shards import ShardSet
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.files import write_json
from hybridvla_core.training.tiny.batches import BatchSource, instruction_ids
from hybridvla_core.training.tiny.config import TrainingConfig
from hybridvla_core.training.tiny.heads import AuxiliaryHeads
from hybridvla_core.training.tiny.recipe import Recipe
from hybridvla_core.training.tiny.rollouts import batch_policy, rollouts_file, take_up_rollouts
from hybridvla_core.training.tiny.start import (
    CAMERAS,
    CONVENTION,
    IMAGE_STRATEGY,
    STATISTICS_KEY,
    check_words,
    read_base,
    start,
)
from hybridvla_core.training.tiny.world import TrainingWorld
from hybridvla_core.training.tokenizer import build_tiny_tokenizer
from hybridvla_core.training.trainer import Generator, Trainer
from hybridvla_core.transforms.prompt import PromptEncoder, load_tokenizer

LOGGER = logging.getLogger(__name__)


def train(config_file: Path, data: Path, work: Path, out: Path, threads: int, summary: Optional[Path], world: TrainingWorld,
          init: Optional[Path] = None) -> Dict[str, Any]:
    """Runs the recipe and writes the checkpoint; started again with the same `work` folder it goes on where it was.

    Args:
        config_file: The recipe.
        data: Folder of `.npz` shards.
        work: Folder of the state to go on from.
        out: Checkpoint folder to write.
        threads: CPU threads.
        summary: File for the result, for machines.
        world: What the recipe needs of the task the shards were made with.
        init: A checkpoint folder to fine-tune. Its statistics and its tokenizer stay, because they are what its numbers mean.

    Returns:
        The result for machines: folder and digest of the checkpoint, and where it comes from.

    Raises:
        ConfigurationError: The recipe does not fit the task.
        CheckpointError: `init` has actions or images that mean something else than the recipe's.
        HybridVLAError: The shards or the state to go on from cannot be used.
    """
    config = load_file(TrainingConfig, config_file)
    if len(config.phase_weights) != len(world.phases):
        raise ConfigurationError(f"{config_file}: phase_weights has {len(config.phase_weights)} entries; give one for each of "
                                 f"the {len(world.phases)} phases")
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    shards = ShardSet.from_folder(data)
    base = read_base(init) if init is not None else None
    model, action, state = start(config, shards, base)
    architecture = model.config
    model.vision_backbone.use_fused_attention(False)
    heads = AuxiliaryHeads(architecture.vision_width, architecture.decoder.hidden, architecture.action_dim, len(world.phases))
    tokenizer = build_tiny_tokenizer() if base is None else load_tokenizer(base.tokenizer_file)
    prompts = PromptEncoder(tokenizer, architecture.sequence)
    check_words(tokenizer, prompts, world.instructions, base)
    grid = architecture.towers[0].image_size // architecture.towers[0].patch_size
    source = BatchSource(shards, config, action, state, instruction_ids(prompts.text_ids, world.instructions), grid)
    recipe = Recipe(model, heads, source, config)
    due = {int(share * config.policy.steps): index for index, share in enumerate(config.dagger.at)}
    generators: Dict[str, Generator] = {"batches": source.rng, "images": source.generator, "noise": recipe.generator}
    origin = f"preset {config.preset}" if base is None else f"checkpoint {base.manifest_sha256[:12]}"
    trainer = Trainer(model, heads, config, work, generators, f"{origin} with seed {config.seed}")
    take_up_rollouts(trainer, shards, due)
    entry = {"action": action.as_json(), "proprio": state.as_json(), "num_transitions": source.first_part}
    checkpoint = CheckpointConfig(
        format=1, model=architecture, convention=CONVENTION, cameras=CAMERAS, image_strategy=IMAGE_STRATEGY,
        ensemble=EnsembleConfig.paper(confidence_window_bins=4), ddim_steps=4, autoregressive_condition="denoised",
        statistics_key=STATISTICS_KEY) if base is None else base.config
    statistics = {checkpoint.statistics_key: entry}

    def roll_out(step: int) -> None:
        """Let the averaged model act, and learn from what it gets into (Ross et al. 2011)."""
        if step not in due:
            return
        average = copy.deepcopy(model)
        average.load_state_dict(trainer.average.values)
        path = work / rollouts_file(due[step])
        policy = batch_policy(average, checkpoint, statistics, tokenizer, world.instructions, seed=step)
        result = world.record_episodes(policy, 500 + due[step], config.dagger.episodes, path,
                                        config.dagger.keyframes, config.dagger.switch_share)
        shards.append(path)
        assert trainer.rollouts is not None, "take_up_rollouts has seen to it"
        trainer.rollouts.append(path.name)
        LOGGER.info("step %d: rollouts %.2f successful, %.2f of the switched ones", step, result["success"], result["switched"])

    recipe.run(trainer, roll_out)
    provenance = {"command": f"hybridvla train --config {config_file} --data {data.name}", "seed": config.seed,
                  "samples": len(shards), "seconds": round(trainer.seconds)}
    if base is not None:
        provenance["init"] = base.manifest_sha256
    digest = save_checkpoint(out, trainer.average.values, checkpoint, statistics, tokenizer.to_str(), provenance, torch.float16)
    result = {"checkpoint": str(out), "manifest_sha256": digest, **provenance}
    write_json(summary, result)
    return result
