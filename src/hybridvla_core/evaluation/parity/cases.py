"""Inference fixtures: one model, its recorded observations, every recorded intermediate."""
from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Mapping

import numpy as np
import torch

from hybridvla_core.evaluation.parity.table import COARSE, EXACT, FINE, Archive, Table
from hybridvla_core.model.decoder import KVCache
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.policy.engine import Engine, Prefix
from hybridvla_core.policy.ensemble import EnsembleConfig, fuse
from hybridvla_core.policy.normalize import Normaliser
from hybridvla_core.policy.preprocess import to_pixels

VIEWS = ("front_image", "wrist_image", "wrist_left_image")
#: Recorded for documentation: the released cached branch is wrong for chunks, bfloat16 is informational.
INFORMATIONAL = ("chunk4/eps_second_official_cached", "bf16_info/", "t_diff_unused")


class CaseCheck:
    """All comparisons of one `case*.npz`."""

    def __init__(self, model: HybridVLA, images: Mapping[str, np.ndarray], statistics: Mapping[str, Any],
                 prompts: Dict[str, Dict[str, Any]], strategy: str, table: Table) -> None:
        self.model, self.images, self.statistics = model, images, statistics
        self.prompts, self.strategy, self.table = prompts, strategy, table

    @torch.inference_mode()
    def run(self, archive: Archive, case: Mapping[str, Any]) -> None:
        views = [name for name in VIEWS if name in case["views"]]
        config = replace(self.model.config, views=len(views))
        self.engine, self.archive, self.config = Engine(self.model), archive, config
        self.normaliser = Normaliser.from_json(self.statistics, case["unnorm_key"], config.action_dim, "statistics")
        self.grippers = tuple(range(6, config.action_dim, 7))
        self._ids(case)
        state = self.normaliser.state.normalise(archive["robot_state"])
        self.table.compare("state, normalised", state[None, None], archive["proprio_normalized"], FINE)
        pixels = to_pixels([self.images[f"img{case['views'][name]}"] for name in views], views, config.towers,
                           self.strategy)
        patches = self._vision({kind: value[None] for kind, value in pixels.items()})
        text = torch.from_numpy(archive["input_ids_diff"])[None, 1:]
        self.state = torch.from_numpy(state).float()[None]
        prefix = self.engine.prefix(patches, text, self.state)
        self._prefix(patches, text)
        self._diffusion(prefix, int(case["num_ddim_steps"]))
        self._probes(prefix, patches, text)
        self._tokens(prefix, "ar", "noise_ar", "t_ar")
        if "ar2/tokens" in archive:
            self._tokens(prefix, "ar2", "noise_ar2", "t_ar2")
        if "both/diff_actions" in archive:
            self._both(prefix, int(case["num_ddim_steps"]))
        for name in archive.names:
            if name.startswith("ddim") and name.endswith("/x_out"):
                self._other_count(prefix, int(name[4:].split("/")[0]))
        if "ddpm/x_out" in archive:
            self._ancestral(prefix)
        self.table.leave(archive, INFORMATIONAL)

    def _ids(self, case: Mapping[str, Any]) -> None:
        """The recorded text ids are inputs (no tokenizer file comes with them); markers and separators are ours."""
        sequence, archive = self.config.sequence, self.archive
        prompt = sequence.prompt.format(instruction=case["instruction"].lower())
        self.table.compare("prompt text", [prompt.rstrip() == case["prompt"]], [True], EXACT)
        recorded = self.prompts.get(case["prompt"])
        if recorded is not None:
            base = list(recorded["base_ids"])
            diffusion = base + [*sequence.before_bod, sequence.bod]
            self.table.compare("token ids", diffusion, archive["input_ids_diff"], EXACT)
        diffusion = archive["input_ids_diff"].tolist()
        self.table.compare("token ids", diffusion + [sequence.eod, *sequence.after_eod], archive["input_ids_ar"], EXACT)

    def _vision(self, pixels: Dict[str, torch.Tensor]) -> torch.Tensor:
        features = self.model.vision_features(pixels)
        patches = self.model.project(features)
        for name in self.archive.names:
            for stem, value in (("vision_features_stride", features), ("projected_patches_stride", patches)):
                if name.startswith(stem):
                    stride = int(name[len(stem):])
                    self.table.compare(stem.split("_stride")[0].replace("_", " "), value[0, ::stride],
                                       self.archive[name], COARSE)
        return patches

    def _tail(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.model.embed_timestep(timestep)[:, None], self.model.embed_action(x)], dim=1)

    def _embeddings(self, patches: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        bos = self.model.embed_tokens(torch.tensor([[self.config.sequence.bos]]))
        return torch.cat([bos, patches, self.model.embed_tokens(text), self.model.embed_state(self.state)[:, None]], 1)

    def _prefix(self, patches: torch.Tensor, text: torch.Tensor) -> None:
        """The first call: inputs, hidden states of every layer, keys and values."""
        archive, compare = self.archive, self.table.compare
        x, t = torch.from_numpy(archive["diff/x_in"][0]), torch.from_numpy(archive["diff/model_timesteps"][0])
        embeddings = torch.cat([self._embeddings(patches, text), self._tail(x, t)], dim=1)
        slots = torch.arange(embeddings.shape[1])
        cache = KVCache(self.config.decoder, 1, embeddings.shape[1], embeddings.dtype)
        record: List[torch.Tensor] = []
        hidden = self.model.llm(embeddings, slots, cache=cache, write_at=slots, record=record)
        compare("inputs of the decoder", embeddings[0, :3], archive["inputs_embeds_head3"], COARSE)
        if "inputs_embeds_tail" in archive:
            tail = archive["inputs_embeds_tail"]
            compare("inputs of the decoder", embeddings[0, -len(tail):], tail, COARSE)
        if "hidden_tail6_all_layers" in archive:
            compare("hidden states, all layers", torch.stack(record)[:, 0, -6:], archive["hidden_tail6_all_layers"], COARSE)
        for name, stride in (("prefix_last_hidden", 1), ("prefix_last_hidden_stride8", 8)):
            if name in archive:
                compare("hidden states, last layer", hidden[0, ::stride], archive[name], COARSE)
        if "kv_tail4" in archive:
            pairs = torch.stack([cache.keys[:, 0, :, -4:], cache.values[:, 0, :, -4:]], dim=1)
            compare("keys and values", pairs, archive["kv_tail4"], COARSE)

    def _diffusion(self, prefix: Prefix, steps: int) -> None:
        archive, compare = self.archive, self.table.compare
        trace: List[Dict[str, torch.Tensor]] = []
        sample = self.engine.denoise(prefix, torch.from_numpy(archive["noise_diff"][0])[None], steps, trace)
        for name in ("x_in", "eps", "pred_x0", "x_out"):
            compare(f"DDIM {name}", torch.stack([step[name] for step in trace]), archive[f"diff/{name}"], FINE)
        compare("DDIM timesteps", torch.stack([step["timestep"] for step in trace]), archive["diff/model_timesteps"], EXACT)
        spaced = self.engine.schedule.ddim(steps)
        if "alphas_cumprod_used" in archive:
            compare("DDIM alphas", spaced.alphas_cumprod, archive["alphas_cumprod_used"], 1e-12)
            compare("DDIM alphas", spaced.alphas_cumprod_prev, archive["alphas_cumprod_prev_used"], 1e-12)
        compare("DDIM sample", sample[0], archive["diff/normalized_sample"], FINE)
        compare("diffusion action", self._physical(sample[0]), archive["diff/actions"], FINE)

    def _physical(self, normalised) -> np.ndarray:
        return self.normaliser.action.unnormalise(np.asarray(normalised, dtype=np.float64), self.grippers)

    def _probes(self, prefix: Prefix, patches: torch.Tensor, text: torch.Tensor) -> None:
        """Noise predictions at other points, without cache and on the cached prefix; chunks of four."""
        archive, base = self.archive, self._embeddings(patches, text)

        def uncached(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            whole = torch.cat([base, self._tail(x, t)], dim=1)
            hidden = self.model.llm(whole, torch.arange(whole.shape[1]))
            return self.model.noise_prediction(hidden[:, -x.shape[1]:])

        xs, ts = torch.from_numpy(archive["eps_probe/x"]), torch.from_numpy(archive["eps_probe/t"])
        plain = torch.stack([uncached(x, t[None]) for x, t in zip(xs, ts)])
        cached = torch.stack([self.engine.noise_prediction(prefix, x, t[None]) for x, t in zip(xs, ts)])
        self.table.compare("eps without cache", plain, archive["eps_probe/eps_no_cache"], FINE)
        self.table.compare("eps on the cached prefix", cached, archive["eps_probe/eps_cached"], FINE)
        self.table.compare("eps, cached against uncached", cached, plain, FINE)
        if "chunk4/x" in archive:
            xs, ts = torch.from_numpy(archive["chunk4/x"]), torch.from_numpy(archive["chunk4/t"])
            chunks = torch.stack([uncached(x, t[None]) for x, t in zip(xs, ts)])
            self.table.compare("eps of a chunk of four", chunks, archive["chunk4/eps_no_cache"], FINE)

    def _tokens(self, prefix: Prefix, key: str, noise: str, timestep: str) -> None:
        archive, compare = self.archive, self.table.compare
        x, t = torch.from_numpy(archive[noise][0])[None], torch.from_numpy(archive[timestep])
        decoded = self.engine.decode(prefix, x, t, keep_logits=True)
        logits = torch.stack(decoded.logits, dim=1)[0]
        tokens = self.engine.tokens
        compare("autoregressive tokens", decoded.ids[0], archive[f"{key}/tokens"], EXACT)
        compare("logits", logits[:, tokens.first:tokens.end], archive[f"{key}/logits_action256"], COARSE)
        compare("logits", logits[:, ::61], archive[f"{key}/logits_stride61"], COARSE)
        compare("logits", torch.logsumexp(logits, dim=-1), archive[f"{key}/logsumexp"], COARSE)
        top = logits.topk(5, dim=-1)
        compare("logits", top.values, archive[f"{key}/top5_logits"], COARSE)
        compare("logits", logits.gather(1, torch.from_numpy(archive[f"{key}/top5_ids"])),
                archive[f"{key}/top5_logits"], COARSE)
        compare("token confidence", decoded.confidence[0], archive[f"{key}/max_probs"], FINE)
        compare("decoded values", decoded.values[0], archive[f"{key}/normalized"], 1e-9)
        compare("autoregressive action", self._physical(decoded.values[0]), archive[f"{key}/actions"], FINE)
        if f"{key}/inputs_embeds_tail6" in archive:
            sequence = self.config.sequence
            marker = torch.tensor([[sequence.eod, *sequence.after_eod]])
            tail = torch.cat([self.model.embed_tokens(torch.tensor([[sequence.bod]])),
                              self.model.embed_state(self.state)[:, None], self._tail(x, t),
                              self.model.embed_tokens(marker)], dim=1)[0]
            expected = archive[f"{key}/inputs_embeds_tail6"]
            rows = min(len(tail), len(expected))
            compare("inputs of the decoder", tail[-rows:], expected[-rows:], COARSE)

    def _both(self, prefix: Prefix, steps: int) -> None:
        archive, compare = self.archive, self.table.compare
        decoded = self.engine.decode(prefix, torch.from_numpy(archive["noise_ar"][0])[None], torch.from_numpy(archive["t_ar"]))
        sample = self.engine.denoise(prefix, torch.from_numpy(archive["noise_diff"][0])[None], steps)
        compare("both paths", self._physical(sample[0]), archive["both/diff_actions"], FINE)
        compare("both paths", self._physical(decoded.values[0]), archive["both/ar_actions"], FINE)
        compare("token confidence", decoded.confidence[0], archive["both/max_probs"], FINE)

    def _other_count(self, prefix: Prefix, steps: int) -> None:
        archive, stem = self.archive, f"ddim{steps}"
        trace: List[Dict[str, torch.Tensor]] = []
        sample = self.engine.denoise(prefix, torch.from_numpy(archive["noise_diff"][0])[None], steps, trace)
        self.table.compare(f"{stem} trajectory", torch.stack([s["x_out"] for s in trace]), archive[f"{stem}/x_out"], FINE)
        self.table.compare("DDIM timesteps", torch.stack([s["timestep"] for s in trace]),
                           archive[f"{stem}/model_timesteps"], EXACT)
        self.table.compare(f"{stem} action", self._physical(sample[0]), archive[f"{stem}/actions"], FINE)

    def _ancestral(self, prefix: Prefix) -> None:
        """DDPM over all 100 steps with the recorded noise (fixed small variance)."""
        archive, schedule = self.archive, self.engine.schedule
        x, trace = torch.from_numpy(archive["noise_diff"][0])[None], []
        noises = torch.from_numpy(archive["ddpm/step_noise"])
        for index, step in enumerate(reversed(range(schedule.steps))):
            eps = self.engine.noise_prediction(prefix, x, torch.tensor([step]))
            x = schedule.ancestral_step(step, x, eps, noises[index])
            trace.append(x)
        # Without clipping x grows past 10^3 here, so rounding is judged relative to its size.
        size = np.maximum(1.0, np.abs(archive["ddpm/x_out"]).max())
        self.table.compare("DDPM trajectory, relative", torch.stack(trace) / size, archive["ddpm/x_out"] / size, FINE)
        self.table.compare("DDPM action", self._physical(x[0]), archive["ddpm/actions"], FINE)


def check_fusion(recorded: List[Mapping[str, Any]], table: Table) -> None:
    """The released fusion rule and robot loop (`fusion.json`)."""
    for row in recorded:
        config = EnsembleConfig("released", float(row["threshold"]), 0, "euler", "mean_above_half")
        confidence = np.array(row["confidences"])
        diffusion, tokens = np.array(row["diff_action"]), np.array(row["ar_action"])
        fused = config.passes(confidence)
        action = fuse(diffusion, tokens, config) if fused else diffusion
        sent = action[:6].copy()
        sent[:3] += np.array(row["robot_state"])[7:10]
        table.compare("fusion decision", [fused], [bool(row["fused"])], EXACT)
        table.compare("fusion sum of six", confidence[:6].sum(), row["sum_first6"], 1e-9)
        table.compare("fused pose sent", sent, row["pose6_sent"], 1e-9)
        table.compare("fused gripper sent", action[6], row["gripper_sent"], 1e-9)
