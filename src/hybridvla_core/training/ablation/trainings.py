"""Tables 1 and 3: trainings with a part left out or the sequence reordered, all with the same budget, data and seeds."""
from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from scipy.stats import ttest_rel

from hybridvla_core.report.comparisons import FAILS, HOLDS, OPEN, holm
from hybridvla_core.training.hybrid.config import TrainingConfig
from hybridvla_core.training.hybrid.grounding.config import GroundingConfig

#: Least number of seeds that allows a statement about a kind of training.
LEAST_SEEDS = 3
DIFFUSION, TOKENS = "diffusion", "tokens"
#: Errors of one training on the validation frames, mm, by path.
Errors = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Training:
    """One kind of training.

    Attributes:
        name: Name in the table.
        change: Change that `changed` makes.
        paper: The paper's success rates of diffusion and of tokens; None if the paper gives none.
    """

    name: str
    change: str
    paper: Tuple[Optional[float], Optional[float]] = (None, None)


TRAININGS: Tuple[Training, ...] = (
    Training("type 1, all parts (Ex1, Ex3)", "nothing", (0.66, 0.62)),
    Training("type 2: no markers", "type 2", (0.56, 0.54)),
    Training("type 3: state in words", "type 3", (0.61, 0.59)),
    Training("type 4: tokens before the noise", "type 4", (0.57, 0.60)),
    Training("diffusion's loss alone (Ex2)", "diffusion alone", (0.60, None)),
    Training("tokens' loss alone (Ex4)", "tokens alone", (None, 0.57)),
    Training("no grounding (in the place of Ex5)", "no grounding"), Training("no robot state (Ex6)", "no state"))


def changed(recipe: TrainingConfig, change: str, seed: int, share: float) -> TrainingConfig:
    """Returns a recipe with one thing changed, a given seed, and a share of its steps in every stage.

    Args:
        recipe: The full recipe.
        change: `nothing`, `type 2` to `type 4`, `diffusion alone`, `tokens alone`, `no grounding` or `no state`.
        seed: Seed of everything drawn in training.
        share: Share of the steps, in (0, 1].
    """
    stages = tuple(replace(stage, steps=max(1, round(stage.steps * share))) for stage in recipe.stages)
    recipe = replace(recipe, seed=seed, stages=stages)
    if change in ("type 2", "type 3", "type 4"):
        kind = int(change[-1])
        return replace(recipe, sequence=kind, state="words" if kind == 3 else "embedding")
    if change == "diffusion alone":
        return replace(recipe, objective=replace(recipe.objective, tokens=0.0))
    if change == "tokens alone":
        return replace(recipe, objective=replace(recipe.objective, diffusion=0.0))
    if change == "no grounding":     # the same number of steps, all with the hybrid loss alone
        last = replace(stages[-1], steps=sum(stage.steps for stage in stages))
        return replace(recipe, grounding=GroundingConfig(), stages=(last,))
    return replace(recipe, state="none") if change == "no state" else recipe


@dataclass(frozen=True)
class Better:
    """Claim that one training's error is smaller than that of others on a path.

    Attributes:
        text: Text of the claim on the page.
        better: Name of the training.
        others: Names of the trainings that it is compared with.
        paths: Paths for which the claim is made.
    """

    text: str
    better: str
    others: Tuple[str, ...]
    paths: Tuple[str, ...] = (DIFFUSION, TOKENS)


CLAIMS: Tuple[Better, ...] = (
    Better("sequence type 1 is better than types 2, 3 and 4", "nothing", ("type 2", "type 3", "type 4")),
    Better("both losses together are better for diffusion than its own alone", "nothing", ("diffusion alone",), (DIFFUSION,)),
    Better("both losses together are better for tokens than their own alone", "nothing", ("tokens alone",), (TOKENS,)),
    Better("training before the hybrid loss helps", "nothing", ("no grounding",)),
    Better("robot state helps", "nothing", ("no state",)))


def trainings_sheet(found: Mapping[Tuple[str, int], Errors], seeds: Sequence[int], budget: str) -> Dict[str, Any]:
    """Returns the sheet.

    Args:
        found: Errors by change and seed, without trainings that were not run.
        seeds: All wanted seeds.
        budget: Budget of one training, in words.
    """
    rows: List[List[Any]] = []
    bars: List[List[Any]] = []
    for training in TRAININGS:
        done = [found[training.change, seed] for seed in seeds if (training.change, seed) in found]
        cells = [_median(done, path) for path in (DIFFUSION, TOKENS)]
        rows.append([training.name, len(done), *("" if cell is None else f"{cell:.1f}" for cell in cells),
                     *("" if rate is None else f"{rate:.2f}" for rate in training.paper)])
        bars += [[f"{training.change}: {path}", cell, f"{cell:.1f} mm", None]
                 for path, cell in zip((DIFFUSION, TOKENS), cells) if cell is not None]
    return {"name": "trainings", "title": "Sequences and parts of the training (Tables 1 and 3)",
            "unit": "median distance of a held-out target, mm",
            "about": f"A model of about 2 M parameters, {budget}. The measure is how far predicted targets lie from the labels "
                     "of held-out pictures, not success in episodes, which is what the paper's figures are. Sequences 2 to 4 are "
                     "our reading of figure and text (docs/training.md). There is no pretraining here; grounding stands "
                     "in its place. Ex0 averages both paths: see the tables above.",
            "head": ["", "seeds", "diffusion, mm", "tokens, mm", "paper: diffusion", "paper: tokens"], "rows": rows, "bars": bars,
            "remarks": [], "claims": [_judged(claim, found, seeds) for claim in CLAIMS]}


def _median(done: Sequence[Errors], path: str) -> Optional[float]:
    """Returns the mean over seeds of the median error."""
    medians = [float(np.median(errors[path])) for errors in done if errors[path]]
    return sum(medians) / len(medians) if medians else None


def _judged(claim: Better, found: Mapping[Tuple[str, int], Errors], seeds: Sequence[int]) -> Dict[str, Any]:
    """Judges a claim by a paired t-test over seeds on the logarithm of the median error, with Holm's correction."""
    both = [seed for seed in seeds if all((change, seed) in found for change in (claim.better, *claim.others))]
    result: Dict[str, Any] = {"text": claim.text, "verdict": OPEN, "compared": {}}
    if len(both) < LEAST_SEEDS:
        return {**result, "test": f"{len(both)} seed(s); a paired t-test over seeds needs {LEAST_SEEDS}"}
    pairs = [(path, other) for path in claim.paths for other in claim.others]
    apart, p = [], []
    for path, other in pairs:
        ours, theirs = ([math.log(float(np.median(found[change, seed][path]))) for seed in both]
                        for change in (claim.better, other))
        apart.append(float(np.mean(np.subtract(ours, theirs))))
        p.append(float(ttest_rel(ours, theirs).pvalue))
    told = holm(p)
    if all(sure and difference < 0 for sure, difference in zip(told, apart)):
        result["verdict"] = HOLDS
    elif any(sure and difference > 0 for sure, difference in zip(told, apart)):
        result["verdict"] = FAILS
    shown = "; ".join(f"{path}, against {other}: error {math.exp(difference) - 1:+.0%}, p {value:.2g}"
                      for (path, other), difference, value in zip(pairs, apart, p))
    return {**result, "test": f"paired t-test over {len(both)} seeds of the logarithm of the median error, Holm's correction, "
                              f"level 0.05: {shown}"}
