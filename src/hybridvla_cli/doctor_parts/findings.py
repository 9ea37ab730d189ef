"""One line of the doctor's report."""
from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, FAILURE = "ok", "warning", "failure"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: Name of the check.
        status: ok, warning (works without it) or failure.
        found: What was found and, unless all is well, why it matters.
        advice: The command that fixes it; empty if ok.
    """

    name: str
    status: str
    found: str
    advice: str = ""
