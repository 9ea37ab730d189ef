#!/usr/bin/env python3
"""Makes empty CUDA libraries beside a CUDA build of torch, so that it imports where only its CPU part is needed.

The registry has torch 2.4 and the newest torch only as CUDA builds, whose libraries are another 2 to 3 GB. The
compatibility matrix computes on the CPU, so every CUDA function is replaced by one that answers "no device" (100). For
tests only; a GPU environment installs the real ones.

usage: stub_cuda.py SITE_PACKAGES
"""
from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

#: Libraries that a CUDA build expects beside itself, and the prefixes of their unversioned functions.
CUDA = re.compile(r"lib(cu|nv|nccl)\S*\.so(\.\d+)*$")
NAMES = re.compile(r"^(cu[a-zA-Z]|nccl|nv[a-zA-Z]|__cuda|cudnn)")


def needed(library):
    """Returns the names of the libraries that a library needs."""
    text = subprocess.run(["readelf", "-W", "-d", str(library)], check=True, capture_output=True, text=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.*)\]", text)


def versions(library):
    """Returns version name -> file that must provide it."""
    text = subprocess.run(["readelf", "-W", "-V", str(library)], check=True, capture_output=True, text=True).stdout
    found, file = {}, None
    for line in text.splitlines():
        match = re.search(r"File: (\S+)", line)
        file = match.group(1) if match else file
        match = re.search(r"Name: (\S+)", line)
        if match and file:
            found[match.group(1)] = file
    return found


def undefined(library):
    """Yields the names and versions of the symbols that a library expects from others."""
    text = subprocess.run(["readelf", "-W", "--dyn-syms", str(library)], check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        part = line.split()
        if len(part) >= 8 and part[6] == "UND":
            name, _, version = part[7].partition("@")
            yield name, version.lstrip("@")


def assemble(target, nodes):
    """Builds a shared library of the given symbols by version, each returning 100 (no device)."""
    with tempfile.TemporaryDirectory() as work:
        source, script = Path(work) / "stub.S", Path(work) / "stub.map"
        # Functions that return a string get one; all others return "no device".
        plain, texts, sections, count = [".text"], [], [], 0
        for version, symbols in sorted(nodes.items()):
            for symbol in sorted(symbols):
                lines = texts if symbol.endswith(("String", "Name")) else plain
                if version:
                    lines += [f".globl stub{count}", f"stub{count}:", f".symver stub{count}, {symbol}@@{version}"]
                else:
                    lines += [f".weak {symbol}", f".type {symbol},@function", f"{symbol}:"]
                count += 1
            if version:
                sections.append(f"{version} {{ }};")
        lines = [*plain, "mov $100, %eax", "ret", *texts, "lea sentence(%rip), %rax", "ret", "sentence:",
                 '.asciz "no CUDA device"', '.section .note.GNU-stack,"",@progbits']
        source.write_text("\n".join(lines) + "\n")
        script.write_text("\n".join(sections) + "\n")
        subprocess.run(["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{target.name}", "-o", str(target), str(source)]
                       + ([f"-Wl,--version-script={script}"] if sections else []), check=True)


def main(site):
    folder = Path(site) / "torch" / "lib"
    wanted, plain = {}, set()
    libraries = sorted(folder.glob("*.so*"))
    for library in libraries:
        for name in needed(library):
            if CUDA.match(name) and not (folder / name).exists():
                wanted.setdefault(name, defaultdict(set))
    for library in libraries:
        files = versions(library)
        for symbol, version in undefined(library):
            if files.get(version) in wanted:
                wanted[files[version]][version].add(symbol)
            elif not version and NAMES.match(symbol):
                plain.add(symbol)
    for index, (name, nodes) in enumerate(sorted(wanted.items())):
        if index == 0:  # symbols without a version are found wherever they are
            nodes[""] |= plain
        assemble(folder / name, nodes)


if __name__ == "__main__":
    main(sys.argv[1])
