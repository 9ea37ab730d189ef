"""The interface that a lab's own files and programs rely on, read from a clone and compared with a recorded earlier release."""
from __future__ import annotations

import argparse
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

import yaml

#: Fixed names of keys. A key that depends on what was measured (an instruction, a limit's name, a number) is written as *.
_FIXED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Nodes that command-line programs start beside ours; their names contain a number.
_PASSING = re.compile(r"^/(roslaunch|rostopic|rosservice|record|rqt|ros_tests|rig_tests)(_|-|/|$)|^/rosout")


def files(root: Path) -> Dict[str, Any]:
    """Return the interface found in files: messages, services, launch arguments, configuration keys, executables, targets."""
    return {
        "messages": {f"{path.parent.name}/{path.stem}": fields(path)
                     for kind in ("msg", "srv") for path in sorted((root / kind).glob(f"*.{kind}"))},
        "reconfigure": sorted(re.findall(r'gen\.add\("(\w+)"', (root / "cfg" / "Safety.cfg").read_text(encoding="utf-8"))),
        "launch": {path.name: sorted(arg.get("name", "") for arg in ElementTree.parse(str(path)).getroot().findall("arg"))
                   for path in sorted((root / "launch").glob("*.launch"))},
        "config": {path.relative_to(root).as_posix(): keys(yaml.safe_load(path.read_text(encoding="utf-8")), every=True)
                   for path in sorted((root / "config").rglob("*.yaml"))},
        "nodes": sorted(path.name for path in (root / "nodes").iterdir() if path.is_file()),
        "make": sorted(re.findall(r"^([a-z0-9]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)),
    }


def fields(path: Path) -> List[str]:
    """Return fields and constants of a message or service as `type name`, with --- between request and response."""
    lines = (line.split("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines())
    return [" ".join(words) for words in lines if words]


def keys(value: Any, every: bool = False) -> List[str]:
    """Return paths of all leaves: `a.b`, and `a[]` for items of a list. every: keep also keys that are not plain names."""
    return sorted(set(_walk(value, "", every)))


def _walk(value: Any, path: str, every: bool) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            name = str(key) if every or _FIXED.fullmatch(str(key)) else "*"
            yield from _walk(inner, f"{path}.{name}" if path else name, every)
    elif isinstance(value, (list, tuple)) and value:
        for inner in value:
            yield from _walk(inner, path + "[]", every)
    else:
        yield path


def options(parser: argparse.ArgumentParser) -> Dict[str, List[str]]:
    """Return options and positional arguments of a parser and its subparsers, by the words that lead to each parser."""
    found: Dict[str, List[str]] = {}

    def collect(one: argparse.ArgumentParser, words: str) -> None:
        names: List[str] = []
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, inner in action.choices.items():
                    collect(inner, f"{words} {name}".strip())
            else:
                names += action.option_strings or [str(action.metavar or action.dest)]
        found[words] = sorted(names)

    collect(parser, "")
    return found


def graph(uri: Optional[str] = None) -> Dict[str, List[str]]:
    """Return topics with types, services and nodes of a master, without those of ROS' own tools. uri: default, this process's."""
    import rosgraph

    master = rosgraph.Master("/interface", uri)
    publishers, subscribers, services = master.getSystemState()
    types = dict(master.getTopicTypes())
    ours = {topic for topic, nodes in publishers + subscribers if not all(_PASSING.match(node) for node in nodes)}
    offered = {name for name, nodes in services if not all(_PASSING.match(node) for node in nodes)}
    nodes = {node for _, names in publishers + subscribers + services for node in names}
    return {"topics": sorted(" ".join([topic, types.get(topic, "")]).strip() for topic in ours if not _PASSING.match(topic)),
            "services": sorted(name for name in offered if not _PASSING.match(name)),
            "nodes": sorted(name for name in nodes if not _PASSING.match(name))}


def missing(recorded: Any, found: Any, path: str = "") -> List[str]:
    """Return the names of `recorded` that `found` lacks. Additions are allowed; lists are compared as sets."""
    if isinstance(recorded, Mapping):
        lacking: List[str] = []
        for key, value in recorded.items():
            inner = f"{path}/{key}" if path else key
            lacking += [inner] if key not in found else missing(value, found[key], inner)
        return lacking
    return [f"{path}: {name}" for name in recorded if not any(_holds(one, name) for one in found)]


def _holds(found: str, recorded: str) -> bool:
    """Whether `found` is the recorded name or below it: an empty list may have been filled since, and the other way round."""
    name = recorded[:-2] if recorded.endswith("[]") else recorded
    return found == name or found.startswith((name + ".", name + "[", name + " "))
