"""Check whether this computer's processor has bfloat16 arithmetic or emulates it.

It does not use torch: only newer versions report this, and a robot computer may lack torch.
"""
from __future__ import annotations

from pathlib import Path
from typing import Optional

#: File in which Linux lists the processor's features.
CPUINFO = Path("/proc/cpuinfo")
#: Feature names for bfloat16, by the key of the line: x86, ARM.
ARITHMETIC = {"flags": {"avx512_bf16", "amx_bf16"}, "Features": {"bf16"}}


def multiplies_bfloat16() -> Optional[bool]:
    """Tells whether this processor multiplies bfloat16 in hardware.

    Returns:
        None if it is not known, as outside Linux.
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
    """Says why a type is slow on a device. The results are still correct, so the text is meant for a warning.

    Args:
        dtype: torch's name of the type.
        device: torch's name of the device.

    Returns:
        Half a sentence; empty for every type but bfloat16, for a GPU, and for a processor that has bfloat16 or does not say.
    """
    if dtype != "bfloat16" or device.partition(":")[0] != "cpu" or multiplies_bfloat16() is not False:
        return ""
    return ("this CPU has no bfloat16 arithmetic (avx512_bf16 or amx_bf16, on ARM bf16) and emulates it: a prediction "
            "takes several times as long as in float32, a step of training can take more than ten times as long")
