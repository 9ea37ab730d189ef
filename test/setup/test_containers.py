"""The images and their compose files, as far as they can be checked without a container; `scripts/checks/containers.py`
checks the builds."""
from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import re
import socket
import subprocess
import threading
import xml.etree.ElementTree as ElementTree
from xmlrpc.server import SimpleXMLRPCServer

import pytest
import yaml

from hybridvla_core.paths import ROOT

DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
COMPOSE = sorted(DOCKER.glob("compose.*.yaml"))
SERVICES = [pytest.param(service, id=f"{path.stem}:{name}") for path in COMPOSE
            for name, service in yaml.safe_load(path.read_text())["services"].items()]
_spec = importlib.util.spec_from_file_location("containers", str(ROOT / "scripts/checks/containers.py"))
containers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(containers)


def test_there_is_an_image_for_each_computer_and_a_file_for_each_pair():
    assert [path.stem for path in DOCKERFILES] == ["model", "robot", "sim"]
    assert [path.stem for path in COMPOSE] == ["compose.policy", "compose.robot", "compose.sim"]


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_a_compose_file_keeps_to_the_schema(path):
    schema = pytest.importorskip("jsonschema")
    package = pytest.importorskip("check_jsonschema")
    file = os.path.join(os.path.dirname(package.__file__), "builtin_schemas", "vendor", "compose-spec.json")
    with open(file, encoding="utf-8") as text:
        read = json.load(text)
    validator = schema.validators.validator_for(read)(read)
    config = yaml.safe_load(path.read_text())
    assert [error.message for error in validator.iter_errors(config)] == []
    config["services"][next(iter(config["services"]))]["helthcheck"] = {}
    assert list(validator.iter_errors(config)), "the schema takes anything"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_pinned_watched_and_may_little(service):
    tag = service["image"].rpartition(":")[2]
    assert re.fullmatch(r"\d+\.\d+\.\d+", tag) and (DOCKER / ".." / service["build"]["dockerfile"]).is_file()
    assert service["image"].partition(":")[0] == "hybridvla-" + service["build"]["dockerfile"][len("docker/"):-len(".Dockerfile")]
    assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "user"} & set(service)
    assert service["healthcheck"]["test"][:3] == ["CMD", "python3", f"{containers.PLACE}/docker/healthy.py"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_what_there_is(service):
    program, *rest = service["command"]
    if program == "serve":
        parser = argparse.ArgumentParser()
        importlib.import_module("hybridvla_cli.serve").add_parser(parser.add_subparsers(dest="verb"))
        assert parser.parse_args(service["command"]).port == 8000
    elif program == "roslaunch":
        package, launch, *arguments = [word for word in rest if not word.startswith("--")]
        known = {arg.get("name") for arg in ElementTree.parse(str(ROOT / "launch" / launch)).getroot().findall("arg")}
        assert package == "hybridvla" and {word.partition(":=")[0] for word in arguments} <= known
    else:
        assert service["command"] == ["roscore"]


def test_the_robots_image_commands_nothing_by_itself():
    run = next(rest for word, rest in containers.steps(DOCKER / "robot.Dockerfile") if word == "CMD")
    assert json.loads(run)[:3] == ["roslaunch", "hybridvla", "safety.launch"] and "dry_run:=true" in json.loads(run)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_edit_repeats_no_installing_and_nothing_runs_as_root(path):
    steps = containers.steps(path)
    runs = [number for number, (word, rest) in enumerate(steps) if word == "RUN" and "--until python" in rest]
    before = " ".join(rest for word, rest in steps[:runs[0]] if word == "COPY").split()
    assert len(runs) == 1 and {re.split("/", name)[0] for name in before} == {"scripts", "requirements"} | (
        {"docker"} if "docker/apt_update.sh" in before else set())
    assert not {"src", "launch", "config"} & set(before)
    assert [rest for word, rest in steps if word == "USER"] == ["1000"] and steps[-1][0] == "CMD"
    for word, rest in steps:
        if word == "RUN":
            containers.run_of(rest)
    assert re.fullmatch(r"BASE=[\w./-]+:[\w.-]*\d?[\w.-]*", next(rest for word, rest in steps if word == "ARG"))
    assert ":latest" not in path.read_text()


def test_the_robots_image_is_made_as_the_one_that_is_gone_through():
    assert containers.shape(DOCKER / "robot.Dockerfile") == containers.shape(DOCKER / "sim.Dockerfile")
    assert len(containers.shape(DOCKER / "sim.Dockerfile")) > 15


def test_a_run_that_cannot_be_tried_is_refused():
    for command in ("apt-get install -y curl", "scripts/setup.sh; rm -rf /var/lib/apt/lists", "scripts/setup.sh && curl x | sh"):
        with pytest.raises(ValueError, match="let a script do it"):
            containers.run_of(command)


class Master:
    """A master that knows two nodes: one that answers, and one that does not."""

    def __init__(self):
        self.silent = socket.create_server(("127.0.0.1", 0))
        self.server = SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
        self.uri = f"http://127.0.0.1:{self.server.server_address[1]}"
        known = {"/alive": self.uri, "/hung": f"http://127.0.0.1:{self.silent.getsockname()[1]}"}
        self.server.register_function(lambda caller, name: [1, "", known[name]] if name in known else [-1, "unknown", ""],
                                      "lookupNode")
        self.server.register_function(lambda caller: [1, "", 4711], "getPid")
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_health_is_a_node_that_answers(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("healthy", str(DOCKER / "healthy.py"))
    healthy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(healthy)
    monkeypatch.setattr(healthy, "ANSWER_S", 0.3)
    before, master = socket.getdefaulttimeout(), Master()
    monkeypatch.setenv("ROS_MASTER_URI", master.uri)
    try:
        assert healthy.main(["/alive", "/alive"]) == 0 and capsys.readouterr().out == ""
        for wanted, said in ((["/alive", "/gone"], "/gone is not known to the master"), (["/hung"], "/hung does not answer"),
                             ([master.uri + "/none"], "does not answer"), ([], "")):
            assert healthy.main(wanted) == 1 and said in capsys.readouterr().out
        monkeypatch.setenv("ROS_MASTER_URI", "http://127.0.0.1:1")
        assert healthy.main(["/alive"]) == 1
    finally:
        socket.setdefaulttimeout(before)
        master.server.shutdown()
        master.server.server_close()
        master.silent.close()


@pytest.fixture
def base_image(tmp_path):
    """Make a Noetic image with fake apt-get and gpg: apt-get prints the contents of `said` until a key is in the keyring.

    Its keyring also holds another key of ROS's; a second source has its own keyring. The fake gpg keeps its keys in `kept`.
    """
    ring, foreign = tmp_path / "ring.gpg", tmp_path / "foreign.gpg"
    ring.write_text("OTHER\n")
    foreign.write_text("FOREIGN\n")
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/ros1.list").write_text(f"deb [ signed-by={ring} ] http://packages.ros.org/ros/ubuntu focal main\n")
    (tmp_path / "sources/lab.list").write_text(f"deb [arch=amd64 signed-by={foreign}] https://lab.example/ubuntu focal main\n")
    tools = {"apt-get": f"cd {tmp_path}; echo called >>updates; grep -qs KEY {ring} && exit 0; cat said; test ! -s said",
             "gpg": f'cd {tmp_path}; asked="$*"; echo "$asked" >>keys\n'
                    'while [ $# -gt 1 ]; do test $1 = --homedir && home=$2; shift; done\n'
                    'case "$asked" in *--recv-keys*) test ! -e offline && echo KEY >>$home/kept;; *--export*) cat $home/kept;;\n'
                    '*--import) cat >>$home/kept;; *--import*) cat "$1" >>$home/kept;; esac'}
    for name, body in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    def update(said):
        (tmp_path / "said").write_text(said)
        return subprocess.run([str(DOCKER / "apt_update.sh")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                              env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SOURCES": str(tmp_path / "sources"),
                                   "TRUSTED": str(ring)})
    update.folder, update.ring, update.foreign = tmp_path, ring, foreign
    return update


EXPIRED = "W: GPG error: http://{} focal InRelease: The following signatures were invalid: EXPKEYSIG {} Somebody <a@b>\n"


def test_an_image_whose_key_is_good_is_left_alone(base_image):
    assert base_image("").returncode == 0
    assert (base_image.folder / "updates").read_text() == "called\n" and not (base_image.folder / "keys").exists()


@pytest.mark.parametrize("fingerprint", ["C1CF6E31E6BADE8868B172B4F42ED6FBAB17C654", "4B63CF8FDE49746E98FA01DDAD19BAB3CBF125EA"])
def test_a_key_that_has_run_out_is_fetched_by_its_whole_fingerprint(base_image, fingerprint):
    done = base_image(EXPIRED.format("packages.ros.org/ros/ubuntu", fingerprint[24:]))
    assert done.returncode == 0, done.stderr
    assert f"--recv-keys {fingerprint}\n" in (base_image.folder / "keys").read_text()
    assert "KEY\n" in base_image.ring.read_text() and (base_image.folder / "updates").read_text().count("called") == 2


@pytest.mark.parametrize("entry", ["list", "sources", "no keyring"])
def test_the_key_joins_those_in_the_keyring_of_its_source_and_no_other_keyring_changes(base_image, entry):
    stanza = "Types: deb\nURIs: {}\nSuites: focal\nComponents: main\nSigned-By: {}\n"
    if entry == "sources":
        for path in (base_image.folder / "sources").iterdir():
            path.unlink()
        (base_image.folder / "sources/all.sources").write_text(
            stanza.format("https://lab.example/ubuntu", base_image.foreign) + "\n"
            + stanza.format("http://packages.ros.org/ros/ubuntu/", base_image.ring))
    elif entry == "no keyring":
        (base_image.folder / "sources/ros1.list").write_text("deb http://packages.ros.org/ros/ubuntu focal main\n")
    done = base_image(EXPIRED.format("packages.ros.org/ros/ubuntu", "F42ED6FBAB17C654"))
    assert done.returncode == 0, done.stderr
    assert base_image.ring.read_text() == "OTHER\nKEY\n" and base_image.foreign.read_text() == "FOREIGN\n"


def test_another_fault_and_a_key_out_of_reach_end_the_build_with_a_sentence(base_image):
    for said in ("E: Could not resolve archive.ubuntu.com\n", EXPIRED.format("evil.example", "0123456789ABCDEF")):
        done = base_image(said)
        assert done.returncode == 1 and "not for one of ROS's two keys" in done.stderr
    assert base_image.ring.read_text() == "OTHER\n"
    (base_image.folder / "offline").write_text("")
    done = base_image(EXPIRED.format("packages.ros.org", "F42ED6FBAB17C654"))
    assert done.returncode == 1 and "docs/containers.md" in done.stderr and base_image.ring.read_text() == "OTHER\n"
