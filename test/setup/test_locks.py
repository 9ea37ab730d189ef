"""Locks: what pyproject.toml requires is pinned for both interpreters, within its bounds, and nothing has two different pins."""
from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from hybridvla_core.paths import ROOT

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
WANTED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
LOCKS = {"debian12": ("base", "torch", "vision", "sim", "train", "test"),
         "noetic": ("core", "policy", "torch", "vision", "sim", "cameras", "train", "test")}
#: Options in scripts/test.sh that pytest does not know by itself, and whose they are.
PLUGINS = {"-n auto": "pytest-xdist", "--dist": "pytest-xdist", "--cov": "pytest-cov"}


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
def test_what_the_test_run_tells_pytest_is_understood_with_the_locked_plugins(folder):
    script, pinned = (ROOT / "scripts/test.sh").read_text(encoding="utf-8"), pins(folder, LOCKS[folder])
    plugins = {PLUGINS[option] for option in PLUGINS if re.search(rf"(?<=[ (]){option}\b", script)}
    assert plugins == set(PLUGINS.values())
    for name in plugins:
        wanted = [Requirement(line) for line in metadata.requires(name)]
        needed = {name} | {each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})}
        assert {name_of(each) for each in needed} <= set(pinned)


def imports(path):
    return set(re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.long
@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs the development computer's packages")
def test_every_test_can_be_collected_with_what_is_installed_on_noetic():
    """What only the development computer has must be asked for with `importorskip`."""
    installed = pins("noetic", [lock for lock in LOCKS["noetic"] if lock not in ("cameras", "train")])    # those are by hand
    development = set(pins("debian12", ("test", "browser", "lint"))) - set(installed)
    unknown = [each for each in metadata.distributions() if name_of(each.metadata["Name"]) in development]
    absent = {file.parts[0].partition(".")[0] for each in unknown for file in each.files or () if file.suffix in (".py", ".so")}
    assert {"pyrealsense2", "toppra"} <= absent
    users, before = set(absent), set()
    while users != before:
        before = set(users)
        users |= {path.stem for path in (ROOT / "test/support").glob("*.py") if imports(path) & users}
    files = [str(path) for path in sorted((ROOT / "test").rglob("test_*.py")) if imports(path) & users]
    code = "import sys, pytest; sys.modules.update(dict.fromkeys({!r})); sys.exit(pytest.main({!r}))".format(
        sorted(absent), ["--collect-only", "-qq", "-p", "no:cacheprovider", *files])
    done = subprocess.run([sys.executable, "-c", code], cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", timeout=600, check=False)
    assert done.returncode in (0, 5), done.stdout[-3000:]       # 5: each of them is skipped


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
