"""The report's plots of replayed frames; a dot links to the moment's picture if there is one."""
from __future__ import annotations

import math
from typing import Callable, List, Sequence, Tuple

from hybridvla_core.evaluation.replay.rows import Row
from hybridvla_core.report.svg import BLUE, RED, Dot, Plot, over_time

#: Colours of the judged and of the compared checkpoint.
COLOURS = (RED, BLUE)
Series = Sequence[Sequence[Row]]


def of_recording(series: Series, duration: float, marks: Sequence[Tuple[float, str]]) -> List[Plot]:
    """Returns the plots over time of one recording.

    Args:
        series: The rows of each checkpoint.
        duration: Length of the recording, s.
        marks: (time s, text) of faults in the recording.

    Returns:
        One plot for each number that a row holds.
    """
    def plot(title: str, unit: str, value: Callable[[Row], float], top: float = 0.0) -> Plot:
        dots = [_dot(row, value(row), colour) for rows, colour in zip(series, COLOURS) for row in rows]
        return over_time(title, unit, dots, duration, top or None, marks=marks)

    return [plot("Distance to where the robot went", "m", lambda row: row.distance),
            plot("Angle to how it turned", "rad", lambda row: row.angle),
            plot("Wrong gripper", "", lambda row: math.nan if row.gripper_ok is None else float(not row.gripper_ok), 1.05),
            plot("Mean confidence", "", lambda row: row.confidence, 1.0),
            plot("Distance between the two paths", "m", lambda row: row.path_distance),
            plot("Interventions of the safety filter", "",
                 lambda row: math.nan if row.filter is None else float(len(row.filter.interventions)))]


def _dot(row: Row, value: float, colour: str) -> Dot:
    link = f"#m{row.recording}-{row.index}" if row.pictures else ""
    return Dot(row.time, value, f"{row.time:.2f} s: {value:.4g}", link, colour)
