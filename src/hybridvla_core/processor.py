"""What the processor of this computer calculates with by itself: whether bfloat16 is quick here, or emulated.

Without torch, of which only newer versions say it, and which a robot computer may lack.
"""
from __future__ import annotations

from pathlib import Path
from typing import Optional

#: Where Linux lists what a processor can do.
CPUINFO = Path("/proc/cpuinfo")
#: Its words for bfloat16, by the key of the line: x86, ARM.
ARITHMETIC = {"flags": {"avx512_bf16", "amx_bf16"}, "Features": {"bf16"}}


def multiplies_bfloat16() -> Optional[bool]:
    """Tells whether this processor multiplies bfloat16 by itself.

    Returns:
        None where nothing says it, as outside of Linux.
    """
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, words = line.partition(":")
        if key.strip() in ARITHMETIC:
            return bool(ARITHMETIC[key.strip()].intersection(words.split()))
    return None


def slowness(dtype: str, device: str) -> str:
    """Says why a type is slow on a device. Results are right all the same, so it is for a warning.

    Args:
        dtype: torch's name.
        device: torch's name.

    Returns:
        Half a sentence; empty for every type but bfloat16, for a GPU, and for a processor that has it or says nothing of it.
    """
    if dtype != "bfloat16" or device.partition(":")[0] != "cpu" or multiplies_bfloat16() is not False:
        return ""
    return ("this CPU has no bfloat16 arithmetic (avx512_bf16 or amx_bf16, on ARM bf16) and emulates it: a prediction "
            "takes several times as long as in float32, a step of training can take more than ten times as long")
