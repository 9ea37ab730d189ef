"""How the threads of numerical libraries behave beside other work."""
from __future__ import annotations

import os


def sleep_while_waiting() -> None:
    """Lets OpenMP's idle threads sleep instead of spin, here and in processes started from here; a set choice stands.

    Spinning threads take the cores from whoever has work. OpenMP reads this when torch is imported, so call it before.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
