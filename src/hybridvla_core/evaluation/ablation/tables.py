"""The paper's tables: the variants in each, the paper's own figures, and the orderings that it claims."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Sequence, Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.ablation.variant import ALWAYS, Variant

GIVEN = "given"


@dataclass(frozen=True)
class Row:
    """One row of a table: one way to run the episodes.

    Attributes:
        label: Name of the row in the table.
        variant: How the checkpoint is queried.
        paper: The paper's success rate for this row; None if it has none.
        model: Which checkpoint: `given` by the user, or the name of an ablation model.
        filtered: False if it runs without the safety filter.
        variation: How its scenes differ from those of the demonstrations.
    """

    label: str
    variant: Variant
    paper: Optional[float] = None
    model: str = GIVEN
    filtered: bool = True
    variation: str = ""


@dataclass(frozen=True)
class Claim:
    """A claimed ordering of rows.

    Attributes:
        text: The claim in words.
        better: Label of the row that is claimed to be better, or good enough.
        others: Labels of the rows that it is compared with.
        margin: If given, `better` may be worse than each of them by at most this.
        ours: Whether this is the project's own claim and not the paper's.
    """

    text: str
    better: str
    others: Tuple[str, ...]
    margin: Optional[float] = None
    ours: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the paper.

    Attributes:
        name: Name of the table on the command line.
        title: Title, with the table's place in the paper.
        rows: Rows in the order in which they are printed.
        claims: What the paper, or this project, claims about the rows.
        about: What to know when reading the table.
        reference: Label of the row against which the others are given as a share of its rate; empty for none.
        elsewhere: Other methods with the paper's figures, which are not run here: name and success rate.
    """

    name: str
    title: str
    rows: Tuple[Row, ...]
    claims: Tuple[Claim, ...] = ()
    about: str = ""
    reference: str = ""
    elsewhere: Tuple[Tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        labels = [row.label for row in self.rows]
        named = {label for claim in self.claims for label in (claim.better, *claim.others)}
        named |= {self.reference} - {""}
        if len(set(labels)) < len(labels) or named - set(labels):
            raise HybridVLAError(f"table {self.name}: labels must differ, and claims must name them: {labels}, {sorted(named)}")


#: The other methods of Table 2, with the paper's figures: mean success over the ten tasks.
BASELINES: Tuple[Tuple[str, float], ...] = (
    ("ManipLLM (7B)", 0.38), ("OpenVLA (7B)", 0.41), ("pi0 (2.6B)", 0.55), ("CogACT (7B)", 0.60), ("HybridVLA (2.7B)", 0.58))


def _modes() -> Table:
    ensemble, diffusion, tokens = "ensemble", "diffusion", "autoregressive"
    rows = (Row(ensemble, Variant("ensemble"), 0.74), Row(diffusion, Variant("diffusion"), 0.66),
            Row(tokens, Variant("autoregressive"), 0.62))
    claims = (Claim("the ensemble is better than either path", ensemble, (diffusion, tokens)),
              Claim("diffusion is better than tokens", diffusion, (tokens,)))
    return Table("modes", "Modes (Tables 2 and 7)", rows, claims,
                 "The same weights, asked for both paths' average, for diffusion alone and for tokens alone. The other methods' "
                 "figures are the paper's, over its ten tasks.", elsewhere=BASELINES)


def _threshold() -> Table:
    paper = {"0.90": 0.66, "0.92": 0.64, "0.94": 0.70, "0.96": 0.74, "0.98": 0.69}
    rows = tuple(Row(text, Variant("ensemble", theta=float(text)), value) for text, value in paper.items())
    extra = (Row("averaged always", Variant("ensemble", theta=ALWAYS)),
             Row("released rule, sum of six above 5.8", Variant("ensemble", rule="released", theta=5.8)),
             Row("0.96, window of 0 bins", Variant("ensemble", theta=0.96, window=0)),
             Row("0.96, window of 2 bins", Variant("ensemble", theta=0.96, window=2)))
    claims = (Claim("a threshold of 0.96 is better than the others", "0.96", ("0.90", "0.92", "0.94", "0.98")),)
    return Table("threshold", "Confidence threshold (Table 8)", rows + extra, claims,
                 "The window is how many bins around the decoded one count as sure; otherwise it is the checkpoint's.")


def _conditioning() -> Table:
    rows = (Row("denoised action", Variant("autoregressive", condition="denoised")),
            Row("noise", Variant("autoregressive", condition="noise")),
            Row("as the released script runs", Variant("autoregressive", condition="released")))
    claims = (Claim("tokens that follow the denoised action are better than tokens that follow noise", "denoised action",
                    ("noise",)),)
    return Table("conditioning", "What the tokens follow (section 3.3)", rows, claims,
                 "The paper's text and the released script differ; both are here.")


def _steps() -> Table:
    counts = (2, 4, 8, 10, 20, 25)
    rows = tuple(Row(f"{count} steps", Variant("diffusion", steps=count)) for count in counts)
    rows += (Row("30 steps, spread evenly", Variant("diffusion", steps=30, spacing="even")),)
    claims = (Claim("4 denoising steps are as good as 25 and as 30", "4 steps", ("25 steps", "30 steps, spread evenly"), 0.05),)
    return Table("steps", "Denoising steps (Figure 4)", rows, claims,
                 "30 steps do not divide 100 by the released spacing; they are spread evenly.")


def _filter() -> Table:
    rows = (Row("with the safety filter", Variant("ensemble")),
            Row("without it", Variant("ensemble"), filtered=False))
    claims = (Claim("the filter costs no success", "with the safety filter", ("without it",), 0.05, ours=True),)
    return Table("filter", "Failures, with and without the safety filter (appendix D)", rows, claims,
                 "Without the filter every target goes to the controller at once, as a short script would send it. Violations "
                 "are counted by the rig, against the robot's published limits.")


def _generalization() -> Table:
    paper = {"object": 0.60, "background": 0.80, "height": 0.75, "light": 0.70}
    original = Row("original", Variant("ensemble"), 0.90)
    rows = tuple(Row(f"unseen {name}", Variant("ensemble"), value, variation=name) for name, value in paper.items())
    claims = (Claim("success drops with each of the four", original.label, tuple(row.label for row in rows)),)
    return Table("generalization", "Generalization (Table 4)", (original, *rows), claims,
                 "Scenes unlike those of every demonstration (docs/tasks.md). The paper's figures are those of pick and place.",
                 reference=original.label)


TABLES: Dict[str, Table] = {table.name: table for table in (
    _modes(), _threshold(), _conditioning(), _steps(), _filter(), _generalization())}

def chosen(name: str, others: Sequence[str] = ()) -> Tuple[str, ...]:
    """Returns the names of the tables that a name stands for: the name itself, or every table for `all`.

    Args:
        name: Name from the command line.
        others: Names of the sheets that are not tables of success rates.

    Raises:
        HybridVLAError: There is no such table.
    """
    known = (*TABLES, *others)
    if name == "all":
        return known
    if name not in known:
        raise HybridVLAError(f"there is no table {name!r}; use one of {', '.join(known)}, or all")
    return (name,)
