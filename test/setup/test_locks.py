"""Locks: what pyproject.toml requires is pinned for both interpreters, within its bounds, and nothing has two different pins."""
from __future__ import annotations

import re
import sys

import pytest
from packaging.requirements import Requirement

from hybridvla_core.paths import ROOT

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
WANTED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
LOCKS = {"debian12": ("base", "torch", "vision", "sim", "train", "test"),
         "noetic": ("core", "policy", "torch", "vision", "sim", "cameras", "train", "test")}


def name_of(text):
    return re.sub(r"[-_.]+", "-", text).lower()


def pins(folder, locks):
    """Return package -> versions in the locks of an interpreter."""
    found = {}
    for lock in locks:
        text = (ROOT / "requirements" / folder / f"{lock}.txt").read_text(encoding="utf-8")
        for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE):
            found.setdefault(name_of(name), set()).add(version)
    return found


@pytest.mark.parametrize("folder", sorted(LOCKS))
@pytest.mark.parametrize("group", sorted(WANTED))
def test_what_is_wanted_is_pinned_within_its_bounds(folder, group):
    pinned = pins(folder, LOCKS[folder])
    for wanted in map(Requirement, WANTED[group]):
        versions = pinned.get(name_of(wanted.name))
        assert versions, f"{wanted} is in no lock of requirements/{folder}"
        assert all(wanted.specifier.contains(version) for version in versions), f"{wanted}: {versions}"


@pytest.mark.parametrize("folder", sorted(LOCKS))
def test_the_locks_of_one_interpreter_agree(folder):
    apart = {name: versions for name, versions in pins(folder, LOCKS[folder]).items() if len(versions) > 1}
    assert apart == {}


def test_every_line_of_a_lock_is_a_pin():
    for folder, locks in LOCKS.items():
        for lock in locks:
            for line in (ROOT / "requirements" / folder / f"{lock}.txt").read_text(encoding="utf-8").splitlines():
                assert not line or line.startswith("#") or re.fullmatch(r"[\w.-]+==\S+", line), f"{folder}/{lock}: {line}"


@pytest.fixture(scope="module")
def page():
    return (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")


def test_every_locked_package_stands_in_the_documents(page):
    told = name_of(page) + "".join(f" {'cmeel' + part}" for part in re.findall(r"(?<=[ (])-[a-z-]+", page))
    locks = {**LOCKS, "debian12": (*LOCKS["debian12"], "lint", "browser", "mutants")}
    silent = [f"{folder}: {name}" for folder in locks for name in pins(folder, locks[folder])
              if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", told)]
    assert silent == []


def test_versions_in_the_documents_are_those_of_the_locks(page):
    locked = {version for folder, locks in LOCKS.items() for versions in pins(folder, locks).values() for version in versions}
    rows = [row.split("|")[2] for row in page.split("\n## ")[1].splitlines() if row.startswith("| ")]
    named = {version for row in rows for version in re.findall(r"\d[\w.]*\.\w+", row)}
    assert len(named) > 40 and named - locked == set()
