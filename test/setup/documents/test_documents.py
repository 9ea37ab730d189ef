"""Every command that a document shows is valid: its program's own parser accepts it, its launch file has its arguments, its
node exists. What the commands do is tested elsewhere, with each of them."""
from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from hybridvla_core.paths import ROOT

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
#: A value that the reader has to fill in.
BLANK = re.compile(r"\.\.\.|<\w+>")
COMMAND = re.compile(r"(?<![\w/.-])(?:(?:\S*/)?hybridvla|roslaunch|rosrun|rosservice|make)\s+\S+")


def blocks(text):
    """Return the lines of fenced and indented blocks, with continued ones joined."""
    fenced, lines, before = False, [], ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        indented = line.startswith("    ") and (before == "" or bool(lines and lines[-1] == before.strip()))
        before = line
        if fenced or indented:
            lines.append(line.strip())
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def commands(path):
    """Yield the commands of a document's blocks, without environment, output and remarks."""
    for line in blocks(path.read_text(encoding="utf-8")):
        for part in re.split(r"&&|;", line):
            found = COMMAND.search(part)
            if found and not re.search(r"[^\s\w=\"'$./:~-]", part[:found.start()]):
                try:
                    words = shlex.split(part[found.start():], comments=True)
                except ValueError:
                    continue
                # `[--option F]` may be left out, but must be valid as well.
                yield [part for word in words if word != "&" for part in (word.split() if "[" in word else [word])]


SHOWN = [(path.name, words) for path in DOCUMENTS if path.is_file() for words in commands(path)]


def shown(*programs):
    found = [(name, words) for name, words in SHOWN if os.path.basename(words[0]) in programs]
    return pytest.mark.parametrize("document, words", found, ids=[f"{name}-{number}" for number, (name, _) in enumerate(found)])


def test_there_are_commands_to_look_at():
    programs = [os.path.basename(words[0]) for _, words in SHOWN]
    for program, least in (("hybridvla", 25), ("roslaunch", 25), ("make", 5), ("rosservice", 5), ("rosrun", 1)):
        assert programs.count(program) >= least, program


@pytest.fixture(scope="module")
def docs():
    spec = importlib.util.spec_from_file_location("docs", str(ROOT / "scripts/checks/docs.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_line_that_is_too_wide_is_found_and_tables_and_commands_may_be(tmp_path, docs):
    page, wide = tmp_path / "page.md", "word " * 40
    page.write_text(f"# {wide}\n\n| {wide} |\n\n    {wide}\n\n```\n{wide}\n```\n\n{wide}\n")
    assert list(docs.too_wide(page)) == ["page.md:11: 200 characters; 140 is the most allowed"]


def test_a_link_that_leads_nowhere_is_found(tmp_path, docs):
    (tmp_path / "there.md").write_text("# On the rig\n\n```\n# a remark\n```\n\n### `a_node`, and more (2 minutes)\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md) [b](there.md#on-the-rig) [c](there.md#a_node-and-more-2-minutes) [d](https://example.org/#x)\n")
    assert list(docs.broken_links(page)) == []
    page.write_text("# Here\n[a](gone.md) [b](#here)\n[c](there.md#a-remark)\n")
    assert list(docs.broken_links(page)) == ["page.md:2: the link to gone.md leads nowhere",
                                             "page.md:3: there.md has no heading #a-remark"]


class Taken(Exception):
    """The refusal of an argument by argparse."""


@shown("hybridvla")
def test_a_verb_takes_its_options(document, words, monkeypatch):
    from hybridvla_cli.__main__ import available_verbs

    def refuse(self, message):
        raise Taken(message)
    if words[1].startswith(("-", "VERB", "<")) or BLANK.fullmatch(words[1]):
        return
    assert words[1] in available_verbs(), words
    parser = argparse.ArgumentParser()
    importlib.import_module(f"hybridvla_cli.{words[1]}").add_parser(parser.add_subparsers(dest="verb"))
    monkeypatch.setattr(argparse.ArgumentParser, "error", refuse)
    arguments = [word.strip("[]") for word in words[1:] if not word.startswith((">", "|"))]
    try:
        parser.parse_args(arguments)
    except Taken as refusal:
        blank = any(BLANK.search(word) for word in arguments)
        unknown = re.sub(r"unrecognized arguments:|\.\.\.|\s", "", str(refusal)) if "unrecognized" in str(refusal) else ""
        assert blank and not unknown, f"{document}: {' '.join(words)}: {refusal}"
    except SystemExit as end:
        assert end.code == 0, words         # --help


@shown("roslaunch")
def test_a_launch_file_has_the_arguments(document, words):
    rest = [word for word in words[1:] if not word.startswith("-")]
    if rest[0] != "hybridvla":
        return      # a driver's own launch file
    path = ROOT / "launch" / rest[1]
    assert path.is_file(), f"{document}: {rest[1]}"
    known = {argument.get("name") for argument in ElementTree.parse(str(path)).getroot().findall("arg")}
    for word in rest[2:]:
        name, given, _ = word.partition(":=")
        assert not given or name in known, f"{document}: {rest[1]} has no {name}"


@shown("rosrun")
def test_a_node_is_there(document, words):
    if words[1] == "hybridvla":
        node = ROOT / "nodes" / words[2]
        assert node.is_file() and f"nodes/{words[2]}" in (ROOT / "CMakeLists.txt").read_text(), f"{document}: {words[2]}"
        assert not os.access(str(node), os.X_OK), f"{node} is executable beside catkin's own: rosrun would ask which one is meant"


@shown("make")
def test_a_target_is_there(document, words):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word for word in words[1:] if re.fullmatch(r"[a-z]\w*", word)} <= targets, f"{document}: {words}"


def test_cleaning_removes_what_was_built_and_nothing_that_somebody_made():
    done = subprocess.run(["make", "--dry-run", "clean"], cwd=str(ROOT), stdout=subprocess.PIPE, encoding="utf-8", check=True)
    assert [line.split() for line in done.stdout.splitlines() if "rm" in line] == [["rm", "-rf", "build", "devel"]]


@shown("rosservice")
def test_a_service_is_offered_by_some_node_of_ours(document, words):
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/hybridvla_ros").rglob("*.py"))
    name = next(word for word in words[1:] if word.startswith("/"))
    if name.startswith(("/hybridvla/", "/sim_rig/", "/stand_in/", "/piper_rig/")):
        room, last = name.rsplit("/", 1)
        assert name in sources or (room + "/" in sources and re.search(rf"[\"'/]{last}[\"']", sources)), f"{document}: {name}"


def test_the_status_table_says_what_the_filter_says():
    from hybridvla_core.safety.status import SENTENCES, Reason, State

    rows = dict(re.findall(r"^\| ([A-Z_]+) \| ([^|]+) \|", (ROOT / "docs/safety.md").read_text(encoding="utf-8"), re.MULTILINE))
    flags = {flag.name: SENTENCES[flag] for flag in Reason if flag}
    assert {name: rows.get(name) for name in flags} == flags
    assert set(rows) == {*flags, *(state.name for state in State)}


@pytest.mark.parametrize("package", ["hybridvla_core", "hybridvla_sim", "hybridvla_ros"])
def test_the_layers_in_the_documents_are_those_of_the_linter(package):
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == [package])
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = page.split(f"| `{package}`, from the top |\n|---|\n")[1].split("\n\n")[0]
    told = [set(re.findall(r"`(\w+?)(?:\.py)?`", re.sub(r"\(.*?\)", "", row))) for row in table.splitlines()]
    assert told == [set(re.split(r" [|:] ", layer)) for layer in layers]


@pytest.mark.long
def test_the_pages_are_built_with_the_reference_of_the_code():
    """Skipped where the generator cannot be installed."""
    script = str(ROOT / "scripts/docs.sh")
    made = subprocess.run([script, "--only-install"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
                          timeout=400)
    if made.returncode:
        pytest.skip(f"mkdocs cannot be installed here: {made.stdout[-200:]}")
    built = subprocess.run([script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=400)
    assert built.returncode == 0, built.stdout[-2000:]
    reference = (ROOT / "out/docs/reference/policy/index.html").read_text(encoding="utf-8")
    assert "One observation in, one prediction out." in reference and "manifest_sha256" in reference
    assert (ROOT / "out/docs/first-day/index.html").is_file()
