"""Training fixtures: one collated batch through the released sequence, with its losses and gradients."""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.parity.table import COARSE, EXACT, FINE, Archive, Table
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.schedule import DiffusionSchedule
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.transforms.images import to_pixels

IGNORED = -100
VIEWS = ("front", "wrist", "wrist_left")


class TrainCheck:
    """All comparisons of `train.npz`."""

    def __init__(self, model: HybridVLA, images: Mapping[str, np.ndarray], strategy: str, table: Table) -> None:
        self.model, self.images, self.strategy, self.table = model, images, strategy, table
        self.abar = torch.from_numpy(DiffusionSchedule().alphas_cumprod).float()
        self.tokens = ActionTokens(model.config)

    def run(self, archive: Archive, description: Mapping[str, Any]) -> None:
        self.archive = archive
        for stage in sorted({stage for _, stage in archive.matching(r"([^/]+/[^/]+/R\d+)/.*")}):
            self._stage(stage, description)
        for _, views in archive.matching(r"([^/]+)/ar_only/loss_ce"):
            self._tokens_only(views, description)
        self.table.leave(archive)

    def _pixels(self, views: str, description: Mapping[str, Any]) -> Dict[str, torch.Tensor]:
        index = description[f"{views}/image_index_per_sample"]
        unknown = sorted(set(index) - set(VIEWS))
        if unknown:
            raise HybridVLAError(f"{self.archive.path}: views {unknown}; the released model knows {', '.join(VIEWS)}")
        rows = []
        for sample in range(len(next(iter(index.values())))):
            views_here = [view for view in VIEWS if view in index]
            chosen = [self.images[f"img{index[view][sample]}"] for view in views_here]
            rows.append(to_pixels(chosen, views_here, self.model.config.towers, self.strategy))
        return {kind: torch.stack([row[kind] for row in rows]) for kind in rows[0]}

    def _patches(self, views: str, description: Mapping[str, Any], frozen: bool) -> torch.Tensor:
        with torch.set_grad_enabled(not frozen):
            features = self.model.vision_features(self._pixels(views, description))
        return self.model.project(features)

    def _text(self, views: str, repeat: int = 1) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        archive = self.archive
        ids, mask = (torch.from_numpy(archive[f"{views}/{name}"]).repeat(repeat, 1)
                     for name in ("input_ids", "attention_mask"))
        return ids, torch.from_numpy(self._labels(views)).repeat(repeat, 1), mask

    def _labels(self, views: str) -> np.ndarray:
        """Returns our own labels: the last A action tokens and EOS of each text; everything else is ignored."""
        ids, expected = self.archive[f"{views}/input_ids"], self.archive[f"{views}/labels"]
        mask, count = self.archive[f"{views}/attention_mask"], self.model.config.action_dim + 1
        labels = np.full_like(ids, IGNORED)
        for row, length in enumerate(mask.sum(axis=1)):
            labels[row, length - count:length] = ids[row, length - count:length]
        self.table.compare("label mask", labels, expected, EXACT)
        actions = self.tokens.encode(torch.from_numpy(self.archive[f"{views}/actions"][:, 0]))
        if self.model.config.decoder.family == "llama":
            # Phi's recorded ids were converted to text and back, which many actions do not survive.
            ours = np.stack([row[row != IGNORED][:-1] for row in labels])
            self.table.compare("action labels", actions, ours, EXACT)
        return labels

    def _fuse(self, patches: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, inserted: Optional[torch.Tensor]
              ) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor, List[int]]:
        """Joins BOS, patches, text up to BOD, inserted embeddings and the rest; returns also the mask and where text went."""
        embedded = self.model.embed_tokens(ids)
        sequence = self.model.config.sequence
        # In training the released code counts back from the last EOS; in inference it searches for BOD.
        behind = self.model.config.action_dim + 2 + len(sequence.after_eod)
        offsets = [int((row == sequence.eos).nonzero()[-1]) - behind + 1 for row in ids]
        rows, masks, places = [], [], []
        for row, at in enumerate(offsets):
            middle = embedded[row, :0] if inserted is None else inserted[row]
            rows.append(torch.cat([embedded[row, :1], patches[row], embedded[row, 1:at], middle, embedded[row, at:]]))
            seen = torch.ones(len(patches[row]) + len(middle), dtype=torch.bool)
            masks.append(torch.cat([mask[row, :1], seen[:len(patches[row])], mask[row, 1:at], seen[len(patches[row]):],
                                    mask[row, at:]]))
            index = torch.arange(ids.shape[1])
            places.append(index + (index > 0) * patches.shape[1] + (index >= at) * len(middle))
        return torch.stack(rows), torch.stack(masks), torch.stack(places), offsets

    def _hidden(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        length = embeddings.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None] & mask[:, None, None]
        causal = causal | torch.eye(length, dtype=torch.bool)  # a padded row must attend to something to stay finite
        return self.model.llm(embeddings, torch.arange(length), causal)

    def _stage(self, stage: str, description: Mapping[str, Any]) -> None:
        archive, compare = self.archive, self.table.compare
        views, kind, repeated = stage.split("/")
        repeat = int(repeated[1:])
        self.model.zero_grad(set_to_none=True)
        patches = self._patches(views, description, frozen=kind == "finetune").repeat(repeat, 1, 1)
        ids, labels, mask = self._text(views, repeat)
        action = torch.from_numpy(archive[f"{views}/actions"]).repeat(repeat, 1, 1)
        state = torch.from_numpy(archive[f"{views}/proprio"]).repeat(repeat, 1, 1)
        noise, t = torch.from_numpy(archive[f"{stage}/noise"]), torch.from_numpy(archive[f"{stage}/timestep"])
        abar = self.abar[t][:, None, None]
        x = abar.sqrt() * action + (1 - abar).sqrt() * noise
        compare("noisy action", x, archive[f"{stage}/x_t"], FINE)
        inserted = torch.cat([self.model.embed_state(state[:, 0])[:, None], self.model.embed_timestep(t)[:, None],
                              self.model.embed_action(x)], dim=1)
        embeddings, seen, places, offsets = self._fuse(patches, ids, mask, inserted)
        compare("attention mask", seen, archive[f"{stage}/fused_attention_mask"], EXACT)
        for key, ours in (("fused_len", seen.shape[1]), ("fused_attention_true_counts", seen.sum(1))):
            if f"{stage}/{key}" in description:
                compare("sequence lengths", ours, description[f"{stage}/{key}"], EXACT)
        hidden = self._hidden(embeddings, seen)
        at = torch.tensor(offsets)[:, None] + patches.shape[1] + 2 + torch.arange(x.shape[1])
        eps = self.model.noise_prediction(hidden[torch.arange(len(at))[:, None], at])
        compare("predicted noise", eps.detach(), archive[f"{stage}/eps_pred"], FINE)
        diffusion = F.mse_loss(eps, noise)
        cross = self._cross_entropy(stage, hidden, labels, places)
        total = diffusion + cross
        for name, value in (("diffusion", diffusion), ("ce", cross), ("total", total)):
            compare(f"loss {name}", value.detach(), archive[f"{stage}/loss_{name}"], FINE)
        total.backward()
        self._gradients(stage)
        self._gradient_norms(description.get(f"{stage}/grad_l2_norm_per_module", {}))

    def _cross_entropy(self, stage: str, hidden: torch.Tensor, labels: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        archive, compare = self.archive, self.table.compare
        rows, columns = (labels != IGNORED).nonzero(as_tuple=True)
        at = places[rows, columns]
        targets = labels[rows, columns]
        if f"{stage}/ce_positions" in archive:
            compare("label positions", torch.stack([rows, at], 1), archive[f"{stage}/ce_positions"], EXACT)
        logits = self.model.llm.logits(hidden[rows, at - 1])
        if f"{stage}/ce_targets" in archive:
            compare("label ids", targets, archive[f"{stage}/ce_targets"], EXACT)
            detached = logits.detach()
            compare("training logits", torch.logsumexp(detached, -1), archive[f"{stage}/ce_logsumexp"], COARSE)
            compare("training logits", detached.gather(1, targets[:, None])[:, 0], archive[f"{stage}/ce_target_logit"],
                    COARSE)
        if f"{stage}/ce_logits_action256" in archive:
            compare("training logits", logits.detach()[:, self.tokens.first:self.tokens.end],
                    archive[f"{stage}/ce_logits_action256"], COARSE)
        return F.cross_entropy(logits, targets)

    def _gradients(self, stage: str) -> None:
        parameters = dict(self.model.named_parameters())
        prefix = f"{stage}/grad/"
        for name in [name for name in self.archive.names if name.startswith(prefix)]:
            parameter = parameters.get(name[len(prefix):].replace("llm_backbone.", ""))
            gradient = None if parameter is None else parameter.grad  # blocks that no path uses have no gradient
            expected = self.archive[name]
            scale = max(1.0, float(np.abs(expected).max()))
            actual = np.zeros_like(expected) if gradient is None else gradient.numpy()
            self.table.compare("gradients", actual / scale, expected / scale, FINE)

    def _gradient_norms(self, recorded: Mapping[str, float]) -> None:
        """Compares the gradient norms of whole modules, relative to their size."""
        for module, expected in recorded.items():
            stem = "llm." if module == "llm_backbone" else f"{module}."
            squares = [float(p.grad.double().square().sum()) for name, p in self.model.named_parameters()
                       if name.startswith(stem) and p.grad is not None]
            scale = max(1.0, expected)
            self.table.compare("gradient norms of modules", sum(squares) ** 0.5 / scale, expected / scale, FINE)

    def _tokens_only(self, views: str, description: Mapping[str, Any]) -> None:
        """Compares the sequence without state, timestep and noisy action."""
        with torch.no_grad():
            patches = self._patches(views, description, frozen=True)
            ids, labels, mask = self._text(views)
            embeddings, seen, places, _ = self._fuse(patches, ids, mask, None)
            hidden = self._hidden(embeddings, seen)
            loss = self._cross_entropy(f"{views}/ar_only", hidden, labels, places)
        if f"{views}/ar_only/fused_len" in description:
            self.table.compare("sequence lengths", seen.shape[1], description[f"{views}/ar_only/fused_len"], EXACT)
        self.table.compare("loss ce, tokens only", loss, self.archive[f"{views}/ar_only/loss_ce"], FINE)
