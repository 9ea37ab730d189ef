"""Check of a `.pt` file: what its pickle would import, read without executing it, and whether its bytes are intact.

`torch.load(weights_only=True)` has vulnerabilities in the releases that Python 3.8 can install (CVE-2025-32434,
CVE-2026-24747), and with `mmap=True` it verifies no checksum. The checks here cover both before torch sees the file.
"""
from __future__ import annotations

import pickletools
import zipfile
from collections import Counter
from pathlib import Path
from typing import List, Set

from hybridvla_core.errors import CheckpointError, few

STORAGES = tuple(f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short",
                                                    "Char", "Byte", "Bool"))
#: All globals that a dictionary of tensors saved by torch names.
ALLOWED = frozenset(("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
                     *STORAGES))
STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "UNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING", "STRING")
MEMO = ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT")


def check_archive(path: Path) -> None:
    """Checks that a file is a torch archive of nothing but tensors. Reads it once, in blocks.

    Args:
        path: Path of the file.

    Raises:
        CheckpointError: The file is not such an archive, fails its checksums, or names anything but tensors.
    """
    try:
        with zipfile.ZipFile(str(path)) as archive:
            names = archive.namelist()
            # torch looks names up case-insensitively, below the first part of the first name.
            alike = Counter(name.lower() for name in names)
            twice = [name for name in names if alike[name.lower()] > 1]
            if twice:
                raise CheckpointError(f"{path}: torch could take one of {few(twice)} for another; this is not a checkpoint that "
                                      "torch.save wrote. Do not load this file")
            pickles = [name for name in names if name.lower().endswith(".pkl")]
            wanted = f"{names[0].split('/')[0]}/data.pkl" if names else "data.pkl"
            if pickles != [wanted]:
                raise CheckpointError(f"{path}: holds the pickles {few(pickles)} instead of {wanted} alone; this is not "
                                      "a checkpoint that torch.save wrote")
            foreign = sorted(imports(archive.read(pickles[0])) - ALLOWED)
            if foreign and all(name.startswith("torch.distributed") for name in foreign):
                raise CheckpointError(f"{path}: holds one process' part of a model that FSDP sharded ({foreign[0]}); save the "
                                      "full state dict (FullStateDictConfig) and convert that")
            if foreign:
                raise CheckpointError(f"{path}: its pickle would run {', '.join(foreign[:4])}; a checkpoint holds only "
                                      "tensors. Do not load this file, and ask its source for the plain weights")
            broken = archive.testzip()
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except Exception as error:  # zipfile and pickletools raise many types; all mean a damaged or foreign file
        raise CheckpointError(f"{path}: not a whole torch archive ({type(error).__name__}: {error}); the file is "
                              "truncated, altered or of another kind: copy it again") from error
    if broken is not None:
        raise CheckpointError(f"{path}: the checksum of {broken} does not match; the file was altered, copy it again")


def imports(pickled: bytes) -> Set[str]:
    """Returns `module name` of every global that the pickle names."""
    found: Set[str] = set()
    strings: List[str] = []
    memo: dict = {}
    last = None
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("GLOBAL", "INST"):
            found.add(str(argument))
        elif opcode.name == "STACK_GLOBAL":
            # Its two strings may come from the memo, which can hide anything: only the plain form passes.
            found.add(" ".join(strings[-2:]) if len(strings) >= 2 else "an unknown function")
        elif opcode.name in ("EXT1", "EXT2", "EXT4"):
            found.add("an extension code")
        if opcode.name in STRINGS:
            last = str(argument)
            strings.append(last)
        elif opcode.name in MEMO:
            memo[len(memo) if argument is None else argument] = last
        elif opcode.name in ("BINGET", "LONG_BINGET", "GET"):
            last = memo.get(argument)
            strings.append(str(last))
        else:
            last = None
    return found
