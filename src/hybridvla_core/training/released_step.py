"""Forward and backward pass as in the released trainer, to compare timings: R sequences per sample, logits of every row."""
from __future__ import annotations

from typing import Dict

import torch
import torch.nn.functional as F
from torch import nn

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.training.hybrid.batch import Batch
from hybridvla_core.training.hybrid.rows import markers_before_tokens

IGNORED = -100


class ReleasedStep:
    """Step of the released trainer on our weights; only the computation differs.

    Args:
        model: Our model; its towers, projector and embedders are the released ones.
        repeats: Noisy copies of each action (R).
        bfloat16: Whether to compute under autocast, as released.

    Raises:
        ConfigurationError: transformers is not installed, or the family is not Llama.
    """

    def __init__(self, model: HybridVLA, repeats: int, bfloat16: bool) -> None:
        try:
            from transformers import LlamaConfig, LlamaForCausalLM
        except ImportError as error:
            raise ConfigurationError(f"the released way needs the package transformers ({error})") from error
        decoder = model.config.decoder
        if decoder.family != "llama":
            raise ConfigurationError("the released way is timed for models of the Llama family; choose another preset")
        self.model, self.repeats, self.bfloat16 = model, repeats, bfloat16
        with torch.device("meta"):
            self.llm = LlamaForCausalLM(LlamaConfig(
                vocab_size=decoder.vocab_rows, hidden_size=decoder.hidden, intermediate_size=decoder.intermediate,
                num_hidden_layers=decoder.layers, num_attention_heads=decoder.heads, num_key_value_heads=decoder.kv_heads,
                rms_norm_eps=decoder.norm_eps, rope_theta=decoder.rope_theta, max_position_embeddings=4096, use_cache=False))
        device = model.llm.lm_head.weight.device
        for name, parameter in model.llm.named_parameters():
            module, _, last = name.rpartition(".")
            setattr(self.llm.get_submodule(module), last, parameter)
        self.llm.model.rotary_emb = type(self.llm.model.rotary_emb)(config=self.llm.config, device=device)

    def gradients(self, pixels: Dict[str, torch.Tensor], batch: Batch) -> float:
        """Runs forward and backward; returns the loss."""
        nn.Module.zero_grad(self.model, set_to_none=True)
        device = next(iter(pixels.values())).device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            loss = self._loss({kind: value.repeat(self.repeats, 1, 1, 1, 1) for kind, value in pixels.items()}, batch)
        loss.backward()
        return float(loss.detach())

    def _loss(self, pixels: Dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        model, repeats = self.model, self.repeats
        trained = any(parameter.requires_grad for parameter in model.vision_backbone.parameters())
        with torch.set_grad_enabled(trained):
            features = model.vision_features(pixels)
        patches = model.project(features)
        # The rows of the tiled batch are samples 0, 1, ..., 0, 1, ...
        text, state, tokens, targets = (value.repeat(repeats, 1)
                                        for value in (batch.text, batch.state, batch.tokens, batch.targets))
        noisy, noise = (value.transpose(0, 1).flatten(0, 1) for value in (batch.noise.noisy, batch.noise.target))
        timesteps = batch.noise.timesteps.transpose(0, 1).flatten()
        bos = torch.full((len(text), 1), model.config.sequence.bos, device=text.device)
        marks = torch.tensor(markers_before_tokens(model.config), device=text.device).expand(len(text), -1)
        inserted = torch.cat([model.embed_state(state)[:, None], model.embed_timestep(timesteps)[:, None],
                              model.embed_action(noisy)], 1)
        answer = torch.cat([marks, tokens], 1)
        rows = [model.embed_tokens(bos), patches, model.embed_tokens(text), inserted, model.embed_tokens(answer),
                model.embed_tokens(targets[:, -1:])]
        whole = torch.cat([row.to(rows[0].dtype) for row in rows], 1)
        before = whole.shape[1] - targets.shape[1]
        labels = torch.full(whole.shape[:2], IGNORED, device=whole.device)
        labels[:, before:] = targets
        result = self.llm(inputs_embeds=whole, attention_mask=torch.ones_like(labels), labels=labels, output_hidden_states=True,
                          return_dict=True)
        first = 1 + patches.shape[1] + text.shape[1] + 2
        hidden = result.hidden_states[-1][:, first:first + noisy.shape[1]]
        return F.mse_loss(model.noise_prediction(hidden).float(), noise) + result.loss
