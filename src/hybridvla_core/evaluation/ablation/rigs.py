"""Table 5: episodes over ROS on the two stand-in rigs, from the summary of `make rigs`."""
from __future__ import annotations

from typing import Any, Dict, Mapping

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.report.statistics import wilson

#: Key in the summary -> name of the rig, and the paper's mean success of HybridVLA (7B) over its five tasks there.
RIGS = {"fr3": ("FR3, one arm", 0.83), "agilex": ("AgileX, two arms", 0.71)}


def rigs_sheet(summary: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the sheet of a summary.

    Raises:
        HybridVLAError: No rig completed its run.
    """
    rows, remarks = [], []
    for key, (name, paper) in RIGS.items():
        part = summary.get(key)
        if part is None or not part["episodes"]:
            remarks.append(f"{name}: not run{'' if part is None else ' (' + str(part.get('error')) + ')'}.")
            continue
        won, count = part["successes"], part["episodes"]
        rows.append([name, part["policy"], count, won, "{:.3f} to {:.3f}".format(*wilson(won, count)), part["limit_violations"],
                     f"{paper:.2f}"])
    if not rows:
        raise HybridVLAError(f"no rig was run to its end: {' '.join(remarks)}")
    return {"name": "rigs", "title": "Both rigs over ROS (Table 5)", "bars": [], "unit": "",
            "about": "Through the launch files of the lab, on drivers that stand in for the robots (docs/rigs.md). The paper's "
                     "figures are means over its five tasks with real arms.",
            "head": ["rig", "policy", "episodes", "successful", "95 %", "limit violations", "paper"], "rows": rows,
            "remarks": remarks, "claims": []}
