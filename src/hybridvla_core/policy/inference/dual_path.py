"""Both paths in few passes: drafts that ride along with the denoising steps, passes that verify them, and an early end.

The result is that of `PlainDecoding` (plain greedy decoding) up to rounding; only the number of passes differs.

- The first denoising step needs nothing but noise, so its rows follow the prefix in the prefix's own pass.
- Condition `denoised`: during the last DDIM steps (at most 2 .. n: there is no estimate before) a branch travels in the
  same pass, conditioned on the current estimate of x0, so that Jacobi iterations of the draft cost rows but no pass.
  After the last step the branch, now conditioned on the denoised action, runs until all tokens are exact or the gate can no
  longer open.
- Conditions `noise` and `released`: the branch does not depend on the denoised action, so it is verified in every pass
  from the prefix pass on.

Within a stage nothing reads a number back from the device. A verifying pass ends with one transfer, because the host decides
whether another pass is needed.
"""
from __future__ import annotations

from typing import Callable, Dict, Optional, Tuple

import numpy as np
import torch

from hybridvla_core.model.sequence import (
    branch_length,
    decoding_rows,
    denoising_rows,
    embed_bos,
    embed_markers,
    embed_state_row,
    prefix_length,
    prefix_rows,
)
from hybridvla_core.policy.inference.drafts import ConfidenceGate, Examined, FirstDraft, examine, merge
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.policy.inference.stages import EagerStages
from hybridvla_core.policy.inference.tensors import PredictionInputs, PredictionResult, TokenBranch
from hybridvla_core.policy.inference.workspace import LaterPlans, PassPlan, Shape, Workspace

#: Number of workspaces kept; the least recently used one is dropped.
KEPT_SHAPES = 4


class DualPath:
    """Runs predictions of one checkpoint.

    Args:
        engine: The model and its stages, one by one.
        steps: Number of DDIM steps.
        gate: The ensemble rule.
        first_draft: Drafts tokens for an action that no pass has seen.
        window: Window of the confidence, bins.
        stages: How a stage is run (stages.py): directly, or as a CUDA graph.
        ride_steps: Number of denoising steps with which a draft travels; None: all but the first on a GPU, fewer if rows cost
            time.
    """

    def __init__(self, engine: PlainDecoding, steps: int, gate: ConfidenceGate, first_draft: FirstDraft, window: int,
                 stages: Optional[EagerStages] = None, ride_steps: Optional[int] = None) -> None:
        self.engine, self.model, self.config = engine, engine.model, engine.config
        self.gate, self.first_draft, self.window = gate, first_draft, window
        self.stages = stages or EagerStages()
        self.steps, self.spaced = steps, engine.schedule.ddim(steps)
        self.device = self.model.llm.lm_head.weight.device
        if ride_steps is None:
            ride_steps = self._usual_rides()
        self.ride_steps = min(max(ride_steps, 0), steps - 1)
        self._spaces: Dict[Shape, Workspace] = {}
        with torch.no_grad():
            times = torch.tensor([*self.spaced.timesteps.tolist(), 0], device=self.device)
            self._times = self.model.embed_timestep(times)  # (n + 1, H); the last is the branch's t = 0
            self._markers, self._bos = embed_markers(self.model, self.device), embed_bos(self.model, self.device)

    # One prediction ------------------------------------------------------------------------------------------------

    def run(self, inputs: PredictionInputs, diffusion: bool = True, decode: bool = True, all_tokens: bool = True,
            lap: Callable[[str], None] = lambda stage: None) -> PredictionResult:
        """Runs all stages.

        Args:
            inputs: Inputs of the prediction.
            diffusion: Whether the diffusion path is wanted (a denoised condition needs diffusion anyway).
            decode: Whether the token path is wanted.
            all_tokens: Whether to keep decoding when the gate can no longer open.
            lap: Called at the end of each stage.

        Returns:
            The results of the paths that are wanted.
        """
        stages, batch = self.stages, inputs.state.shape[0]
        length = prefix_length(self.config, inputs.text.shape[1])
        space = self.space(Shape(batch, length, inputs.noise.shape[1], inputs.lengths is not None))
        stages.begin((space.shape, diffusion, decode))
        patches = stages.call("vision", self.engine.encode, inputs.pixels)
        lap("vision")
        early = inputs.condition is not None
        # The plans come from this very recording: another mode's plans would keep the lengths of its own last prediction.
        x: Optional[torch.Tensor]
        x, branch, space.behind = stages.call("prefix", lambda *tensors: self.open(space, decode, *tensors), patches,
                                              inputs.text, inputs.state, inputs.noise, inputs.lengths, inputs.condition)
        lap("prefix")
        if diffusion or not early:
            if self.steps > 1:
                x, branch = stages.call("denoise", lambda *begun: self.denoise(space, decode, early, *begun), x, branch)
            lap("denoise")
        else:
            x = None
        result = PredictionResult()
        if decode:
            assert branch is not None, "a prediction with tokens opens one"
            self._finish(space, x, branch, early, all_tokens, result)
        if x is not None and result.denoised is None:
            result.denoised = x.float().cpu().numpy()
        lap("decode")
        return result

    def space(self, shape: Shape) -> Workspace:
        """Returns the buffers of a shape, allocated at its first use."""
        found = self._spaces.pop(shape, None)
        if found is None:
            found = Workspace(self.config, shape, self.engine.dtype, self.device)
            while len(self._spaces) >= KEPT_SHAPES:
                oldest = next(iter(self._spaces))
                del self._spaces[oldest]
                self.stages.forget(oldest)
        self._spaces[shape] = found
        return found

    # Stages: tensors in, tensors out, no number leaves the device ---------------------------------------------------

    def open(self, space: Workspace, with_branch: bool, patches: torch.Tensor, text: torch.Tensor, state: torch.Tensor,
             noise: torch.Tensor, lengths: Optional[torch.Tensor] = None,
             condition: Optional[Tuple[torch.Tensor, torch.Tensor]] = None
             ) -> Tuple[torch.Tensor, Optional[TokenBranch], LaterPlans]:
        """Runs one pass over BOS ... state and the first DDIM step, with the branch if it depends on neither.

        In a shorter text the state follows its BOD directly, then come unused rows. Shapes are those of `PredictionInputs`.

        Returns:
            x and the branch after that step, and the plans of later passes, so that a recording of this keeps their tensors.
        """
        embedded = embed_state_row(self.model, state)
        rows = prefix_rows(self._bos, patches, self.model.embed_tokens(text), embedded)
        if lengths is not None:
            space.set_lengths(lengths)
            if embedded is not None:
                last = torch.arange(rows.shape[1], device=rows.device)[None, :, None] == lengths[:, None, None] - 1
                rows = torch.where(last, embedded[:, None].to(rows.dtype), rows)
        branch = self.open_branch(condition) if with_branch and condition is not None else None
        x, branch = self._step(space, self.steps - 1, noise.float(), branch, with_branch, condition is not None, rows)
        return x, branch, space.behind

    def denoise(self, space: Workspace, with_branch: bool, verify: bool, x: torch.Tensor, branch: Optional[TokenBranch]
                ) -> Tuple[torch.Tensor, Optional[TokenBranch]]:
        """Runs the other DDIM steps from x (B, S, K, A). `verify`: the branch's condition does not change with x.

        Returns:
            x and the branch after the last step.
        """
        for index in reversed(range(self.steps - 1)):
            x, branch = self._step(space, index, x, branch, with_branch, verify)
        return x, branch

    def open_branch(self, condition: Tuple[torch.Tensor, torch.Tensor]) -> TokenBranch:
        """Returns a branch on given (x, timestep), from a flat draft."""
        x, timestep = condition
        flat = self.first_draft(torch.zeros(len(x), self.config.action_dim, device=x.device))
        return TokenBranch(x, self.model.embed_timestep(timestep), _unproven(flat))

    def verify(self, space: Workspace, branch: TokenBranch, start: int = 0) -> TokenBranch:
        """Runs one pass of the branch's rows from `start` on: the first `start` tokens are exact and in the cache."""
        head, rows = self._branch_rows(branch, start)
        hidden = self._pass(space, space.behind.branch.rows(head) if head else space.behind.branch, rows)
        return self._prove(branch, hidden[:, -(self.config.action_dim - start):], start)

    def _usual_rides(self) -> int:
        """Chooses the number of denoising steps with which a draft travels.

        On a CPU in float32 a pass is soon bound by arithmetic and not by reading the weights. A draft along the last two steps is
        as good as along three, and for a large model the second step costs more than it saves.

        Returns:
            The number of steps.
        """
        head = self.model.llm.lm_head
        if head.weight.device.type != "cpu" or head.weight.dtype != torch.float32:
            return self.steps - 1
        return 1 if head.in_features > 512 else 2

    # Parts of stages -----------------------------------------------------------------------------------------------

    def _step(self, space: Workspace, index: int, x: torch.Tensor, branch: Optional[TokenBranch], with_branch: bool,
              verify: bool, before: Optional[torch.Tensor] = None
              ) -> Tuple[torch.Tensor, Optional[TokenBranch]]:
        """Runs one denoising pass on x (B, S, K, A). `before`: the prefix's rows, in the first pass.

        Returns:
            x, and the branch: one Jacobi iteration further if it travels along, and on the new estimate if it follows x.
        """
        batch, samples, chunk, dims = x.shape
        time = self._times[index].expand(batch, samples, -1)
        rows = [denoising_rows(time, self.model.embed_action(x)).flatten(1, 2)]
        plan = space.behind.denoise
        if branch is not None:
            rows.append(self._branch_rows(branch, 0)[1])
            plan = space.behind.ride
        if before is not None:
            rows.insert(0, before)
            plan = space.opening(branch is not None)
        hidden = self._pass(space, plan, torch.cat([part.to(self.engine.dtype) for part in rows], dim=1))
        if branch is not None:
            tail = hidden[:, -dims:]
            branch = self._prove(branch, tail, 0) if verify else self._redraft(branch, tail)
        own = hidden[:, :space.denoise_rows].unflatten(1, (samples, 1 + chunk))[:, :, 1:]
        x0, x = self.spaced.step(index, x, self.model.noise_prediction(own).float())
        if with_branch and not verify and index <= self.ride_steps:
            branch = self._follow(x0[:, 0], branch)
        return x, branch

    def _follow(self, x0: torch.Tensor, branch: Optional[TokenBranch]) -> TokenBranch:
        """Returns the branch on a new estimate of the denoised action (B, K, A), with its present draft."""
        x = x0.clamp(-1.0, 1.0)
        ids = self.first_draft(x[:, 0]) if branch is None else branch.examined.ids
        return TokenBranch(x, self._times[-1].expand(len(x), -1), _unproven(ids))

    def _redraft(self, branch: TokenBranch, hidden: torch.Tensor) -> TokenBranch:
        """Makes the next draft. A draft may be any token, so the 256 action rows of the head are enough."""
        tokens, head = self.engine.tokens, self.model.llm.lm_head
        bias = None if head.bias is None else head.bias[tokens.first:tokens.end]
        logits = torch.nn.functional.linear(hidden, head.weight[tokens.first:tokens.end], bias)
        return TokenBranch(branch.x, branch.time, _unproven(logits.argmax(dim=-1) + tokens.first))

    def _prove(self, branch: TokenBranch, hidden: torch.Tensor, start: int) -> TokenBranch:
        logits = self.model.llm.logits(hidden).float()
        after = examine(logits, branch.examined.ids[:, start:-1], self.window, self.engine.tokens)
        return TokenBranch(branch.x, branch.time, merge(branch.examined, after, start))

    def _branch_rows(self, branch: TokenBranch, start: int) -> Tuple[int, torch.Tensor]:
        """Returns the number of rows left out and the embeddings of the rest. start 0: all; start e: a_e .. a_(A-1)."""
        drafted = self.model.embed_tokens(branch.examined.ids[:, max(start - 1, 0):-1])
        if start:
            return branch_length(self.config) + start - 1, drafted
        return 0, decoding_rows(denoising_rows(branch.time, self.model.embed_action(branch.x)), self._markers, drafted)

    def _pass(self, space: Workspace, plan: PassPlan, rows: torch.Tensor) -> torch.Tensor:
        return self.model.llm.run(rows.to(self.engine.dtype), plan.rotary, plan.bias, space.cache, plan.write_at,
                                  last=plan.last)

    # Decisions -----------------------------------------------------------------------------------------------------

    def _finish(self, space: Workspace, x: Optional[torch.Tensor], branch: TokenBranch, examined: bool, all_tokens: bool,
                result: PredictionResult) -> None:
        """Runs verifying passes until every row of the batch has what it needs.

        A branch that was `examined`, that is verified on the way, costs no pass at the first look.
        """
        batch, dims = len(branch.x), self.config.action_dim
        passes, done = np.zeros(batch, dtype=np.int64), np.zeros(batch, dtype=bool)
        start = 0
        while True:
            if not examined:
                if start and self.stages.dynamic_rows:
                    branch = self.verify(space, branch, start)
                else:
                    branch = self.stages.call("verify", lambda b: self.verify(space, b), branch)
                passes += ~done
            examined = False
            packed = [branch.examined.ids.double(), branch.examined.confidence.double(),
                      branch.examined.exact[:, None].double()]
            if x is not None and result.denoised is None:
                packed.append(x.flatten(1).double())
            host = torch.cat(packed, dim=1).cpu().numpy()  # the one transfer of a decision
            ids, confidence, exact = host[:, :dims], host[:, dims:2 * dims], host[:, 2 * dims].astype(np.int64)
            if x is not None and result.denoised is None:
                result.denoised = host[:, 2 * dims + 1:].reshape(x.shape).astype(np.float32)
            done |= self.settled(ids, confidence, exact, passes, all_tokens)
            if done.all():
                break
            start = min(int(exact[~done].min()), dims - 1)
        result.ids, result.confidence, result.exact, result.passes = ids.astype(np.int64), confidence, exact, passes

    def settled(self, ids: np.ndarray, confidence: np.ndarray, exact: np.ndarray, passes: np.ndarray,
                all_tokens: bool) -> np.ndarray:
        """Returns which rows need no further pass after `passes` (B,)."""
        done = exact >= self.config.action_dim
        if not all_tokens:
            done |= np.array([not self.gate.reachable(row, int(known)) for row, known in zip(confidence, exact)])
        return done


def _unproven(ids: torch.Tensor) -> Examined:
    return Examined(ids, torch.zeros(ids.shape, dtype=torch.float32, device=ids.device),
                    torch.zeros(len(ids), dtype=torch.long, device=ids.device))
