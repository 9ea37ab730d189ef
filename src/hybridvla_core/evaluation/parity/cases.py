"""Inference fixtures: one model, its recorded observations, and every recorded intermediate value."""
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

import numpy as np
import torch

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.parity.bfloat16 import Bfloat16Report
from hybridvla_core.evaluation.parity.table import COARSE, EXACT, FINE, Archive, Table
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.layers import KVCache
from hybridvla_core.policy.inference.plain import PlainDecoding, Prefix
from hybridvla_core.transforms.images import to_pixels
from hybridvla_core.transforms.normalise import Normaliser
from hybridvla_core.transforms.prompt import PromptEncoder

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

VIEWS = ("front_image", "wrist_image", "wrist_left_image")
#: Recorded for documentation: the released cached branch is wrong for chunks, bfloat16 is informational.
INFORMATIONAL = (r"chunk\d+/eps_second_official_cached", r"bf16_info/.*", r"t_diff_unused")


class CaseCheck:
    """All comparisons of one `case*.npz`."""

    def __init__(self, model: HybridVLA, images: Mapping[str, np.ndarray], statistics: Mapping[str, Any],
                 prompts: Dict[str, Dict[str, Any]], strategy: str, table: Table,
                 encoder: Optional[PromptEncoder] = None) -> None:
        self.model, self.images, self.statistics, self.encoder = model, images, statistics, encoder
        self.prompts, self.strategy, self.table = prompts, strategy, table
        self.short = Bfloat16Report(model)

    @torch.inference_mode()
    def run(self, archive: Archive, case: Mapping[str, Any]) -> None:
        unknown = sorted(set(case["views"]) - set(VIEWS))
        if unknown or not case["views"]:
            raise HybridVLAError(f"{archive.path}: views {unknown or 'none'}; the released model knows {', '.join(VIEWS)}")
        views = [name for name in VIEWS if name in case["views"]]
        config = replace(self.model.config, views=len(views))
        self.engine, self.archive, self.config = PlainDecoding(self.model), archive, config
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
        self._lengths(case, patches, text)
        self._prefix(patches, text)
        self._diffusion(prefix, int(case["num_ddim_steps"]))
        self._probes(prefix, patches, text)
        for _, number in archive.matching(r"ar(\d*)/tokens"):
            self._tokens(prefix, patches, text, number)
        if "both/diff_actions" in archive:
            self._both(prefix, int(case["num_ddim_steps"]))
        for _, steps in archive.matching(r"ddim(\d+)/x_out"):
            self._other_count(prefix, int(steps))
        if "ddpm/x_out" in archive:
            self._ancestral(prefix)
        if "ar/tokens" in archive:
            self.short.add(archive, {kind: value[None] for kind, value in pixels.items()}, text, self.state,
                           int(case["num_ddim_steps"]), self.normaliser.action, self.table)
        self.table.leave(archive, INFORMATIONAL)
        if "arrays" in case:
            self.table.compare_listed(archive, case["arrays"])

    def _lengths(self, case: Mapping[str, Any], patches: torch.Tensor, text: torch.Tensor) -> None:
        """Compares the sequence lengths of `cases.json`."""
        tail = 2 + self.archive["noise_diff"].shape[1]  # state, timestep, x
        length = 1 + patches.shape[1] + text.shape[1] + tail
        marker = 1 + len(self.config.sequence.after_eod)
        decoder = self.config.decoder
        for key, ours in (("n_patch_tokens", patches.shape[1]), ("prefill_len_diff", length),
                          ("prefill_len_ar", length + marker),
                          ("kv_shape_after_first_step", [1, decoder.kv_heads, length, decoder.head_dim])):
            if key in case:
                self.table.compare("sequence lengths", ours, case[key], EXACT)

    def _ids(self, case: Mapping[str, Any]) -> None:
        """Compares markers and separators with ours; the recorded text ids are inputs (no tokenizer file comes with them)."""
        sequence, archive = self.config.sequence, self.archive
        prompt = PromptEncoder(None, sequence).prompt(case["instruction"])
        self.table.compare("prompt text", [prompt == case["prompt"]], [True], EXACT)
        recorded = self.prompts.get(case["prompt"])
        if recorded is not None:
            diffusion = list(recorded["base_ids"]) + [*sequence.before_bod, sequence.bod]
            self.table.compare("token ids", diffusion, archive["input_ids_diff"], EXACT)
        diffusion = archive["input_ids_diff"].tolist()
        ends = [sequence.bos, *sequence.before_bod, sequence.bod]
        self.table.compare("token ids", [diffusion[0], *diffusion[1 - len(ends):]], ends, EXACT)
        self.table.compare("token ids", diffusion + [sequence.eod, *sequence.after_eod], archive["input_ids_ar"], EXACT)
        if self.encoder is not None and case["instruction"].strip():
            self.table.compare("token ids, our tokenizer", self.encoder.ids(case["instruction"]), diffusion, EXACT)

    def _vision(self, pixels: Dict[str, torch.Tensor]) -> torch.Tensor:
        features = self.model.vision_features(pixels)
        patches = self.model.project(features)
        for stem, value in (("vision_features", features), ("projected_patches", patches)):
            for name, stride in self.archive.matching(stem + r"_stride(\d+)"):
                self.table.compare(stem.replace("_", " "), value[0, ::int(stride)], self.archive[name], COARSE)
        return patches

    def _tail(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.model.embed_timestep(timestep)[:, None], self.model.embed_action(x)], dim=1)

    def _embeddings(self, patches: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        bos = self.model.embed_tokens(torch.tensor([[self.config.sequence.bos]]))
        return torch.cat([bos, patches, self.model.embed_tokens(text), self.model.embed_state(self.state)[:, None]], 1)

    def _prefix(self, patches: torch.Tensor, text: torch.Tensor) -> None:
        """Compares the first call: inputs, hidden states of every layer, keys and values."""
        archive, compare = self.archive, self.table.compare
        x, t = torch.from_numpy(archive["diff/x_in"][0]), torch.from_numpy(archive["diff/model_timesteps"][0])
        embeddings = torch.cat([self._embeddings(patches, text), self._tail(x, t)], dim=1)
        slots = torch.arange(embeddings.shape[1])
        cache = KVCache(self.config.decoder, 1, embeddings.shape[1], embeddings.dtype)
        record: List[torch.Tensor] = []
        hidden = self.model.llm(embeddings, slots, cache=cache, write_at=slots, record=record)
        for name, rows in archive.matching(r"inputs_embeds_head(\d+)"):
            compare("inputs of the decoder", embeddings[0, :int(rows)], archive[name], COARSE)
        if "inputs_embeds_tail" in archive:
            tail = archive["inputs_embeds_tail"]
            compare("inputs of the decoder", embeddings[0, -len(tail):], tail, COARSE)
        for name, rows in archive.matching(r"hidden_tail(\d+)_all_layers"):
            compare("hidden states, all layers", torch.stack(record)[:, 0, -int(rows):], archive[name], COARSE)
        for name, stride in archive.matching(r"prefix_last_hidden(?:_stride(\d+))?"):
            compare("hidden states, last layer", hidden[0, ::int(stride or 1)], archive[name], COARSE)
        for name, rows in archive.matching(r"kv_tail(\d+)"):
            pairs = torch.stack([cache.keys[:, 0, :, -int(rows):], cache.values[:, 0, :, -int(rows):]], dim=1)
            compare("keys and values", pairs, archive[name], COARSE)

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

    def _physical(self, normalised: ArrayLike) -> np.ndarray:
        return self.normaliser.action.unnormalise(np.asarray(normalised, dtype=np.float64), self.grippers)

    def _probes(self, prefix: Prefix, patches: torch.Tensor, text: torch.Tensor) -> None:
        """Compares noise predictions at other points, without cache and on the cached prefix; chunks of four."""
        archive, base = self.archive, self._embeddings(patches, text)

        def uncached(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            whole = torch.cat([base, self._tail(x, t)], dim=1)
            hidden = self.model.llm(whole, torch.arange(whole.shape[1]))
            return self.model.noise_prediction(hidden[:, -x.shape[1]:])

        if "eps_probe/x" in archive:
            xs, ts = torch.from_numpy(archive["eps_probe/x"]), torch.from_numpy(archive["eps_probe/t"])
            plain = torch.stack([uncached(x, t[None]) for x, t in zip(xs, ts)])
            cached = torch.stack([self.engine.noise_prediction(prefix, x, t[None]) for x, t in zip(xs, ts)])
            self.table.compare("eps without cache", plain, archive["eps_probe/eps_no_cache"], FINE)
            self.table.compare("eps on the cached prefix", cached, archive["eps_probe/eps_cached"], FINE)
            self.table.compare("eps, cached against uncached", cached, plain, FINE)
        for name, _ in archive.matching(r"chunk(\d+)/x"):
            stem = name[:-2]
            xs, ts = torch.from_numpy(archive[name]), torch.from_numpy(archive[f"{stem}/t"])
            chunks = torch.stack([uncached(x, t[None]) for x, t in zip(xs, ts)])
            self.table.compare("eps of a chunk", chunks, archive[f"{stem}/eps_no_cache"], FINE)

    def _tokens(self, prefix: Prefix, patches: torch.Tensor, text: torch.Tensor, number: str) -> None:
        """Compares one greedy decoding, conditioned like the released code on a recorded noise and timestep."""
        archive, compare, key = self.archive, self.table.compare, f"ar{number}"
        x = torch.from_numpy(archive[f"noise_ar{number}"][0])[None]
        t = torch.from_numpy(archive[f"t_ar{number}"])
        decoded = self.engine.decode(prefix, x, t, keep_logits=True)
        logits = torch.stack(decoded.logits, dim=1)[0]
        compare("autoregressive tokens", decoded.ids[0], archive[f"{key}/tokens"], EXACT)
        for name, count in archive.matching(key + r"/logits_action(\d+)"):
            end = self.config.sequence.action_vocab_end
            compare("logits", logits[:, end - int(count):end], archive[name], COARSE)
        for name, stride in archive.matching(key + r"/logits_stride(\d+)"):
            compare("logits", logits[:, ::int(stride)], archive[name], COARSE)
        compare("logits", torch.logsumexp(logits, dim=-1), archive[f"{key}/logsumexp"], COARSE)
        for name, count in archive.matching(key + r"/top(\d+)_logits"):
            compare("logits", logits.topk(int(count), dim=-1).values, archive[name], COARSE)
            chosen = torch.from_numpy(archive[f"{key}/top{count}_ids"])
            compare("logits", logits.gather(1, chosen), archive[name], COARSE)
        compare("token confidence", decoded.confidence[0], archive[f"{key}/max_probs"], FINE)
        compare("decoded values", decoded.values[0], archive[f"{key}/normalized"], 1e-9)
        compare("autoregressive action", self._physical(decoded.values[0]), archive[f"{key}/actions"], FINE)
        marker = torch.tensor([[self.config.sequence.eod, *self.config.sequence.after_eod]])
        whole = torch.cat([self._embeddings(patches, text), self._tail(x, t), self.model.embed_tokens(marker)], dim=1)[0]
        for name, rows in archive.matching(key + r"/inputs_embeds_tail(\d+)"):
            compare("inputs of the decoder", whole[-int(rows):], archive[name], COARSE)

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
        """Compares DDPM over all 100 steps with the recorded noise (fixed small variance)."""
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
