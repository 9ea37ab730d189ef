"""`hybridvla`: which verbs there are, how errors read, and what `doctor` finds."""
from __future__ import annotations

import json
import subprocess
import sys
import types

import pytest

from hybridvla_cli import __main__ as command_line
from hybridvla_cli import doctor
from hybridvla_core import errors
from hybridvla_core.files import write_json


@pytest.fixture
def verb(monkeypatch):
    """Makes `hybridvla doctor` run a function of ours."""
    def install(run):
        module = types.ModuleType("hybridvla_cli.doctor")
        module.add_parser = lambda subparsers: subparsers.add_parser("doctor")
        module.run = run
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return install


def test_help_lists_what_is_there_and_imports_nothing_heavy():
    code = ("import sys; from hybridvla_cli.__main__ import main\n"
            "try: main(['--help'])\n"
            "except SystemExit: print(sorted(m for m in ('torch', 'numpy', 'mujoco') if m in sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in command_line.available_verbs():
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", command_line.available_verbs())
def test_every_verb_has_help_and_json(name, capsys):
    words = [name, "filter"] if name == "bench" else [name]  # bench has parts, each with its own options
    with pytest.raises(SystemExit) as exit_info:
        command_line.main([*words, "--help"])
    assert exit_info.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_an_unknown_verb_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as exit_info:
        command_line.main(["fly"])
    assert exit_info.value.code == 2
    assert "fly" in capsys.readouterr().err


def test_our_errors_are_one_sentence(verb, capsys):
    def fail(args):
        raise errors.CheckpointError("checkpoints/x: model.safetensors is missing;\n copy it")
    verb(fail)
    assert command_line.main(["doctor"]) == 1
    assert capsys.readouterr().err == "hybridvla: checkpoints/x: model.safetensors is missing; copy it\n"
    with pytest.raises(errors.CheckpointError):
        command_line.main(["--debug", "doctor"])


def test_a_file_that_cannot_be_written_is_one_sentence(verb, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    verb(lambda args: write_json(tmp_path / "file" / "out.json", {}) or 0)
    assert command_line.main(["doctor"]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(verb):
    verb(lambda args: [][0])
    with pytest.raises(IndexError):
        command_line.main(["doctor"])


def test_interrupting_is_quiet(verb, capsys):
    def interrupt(args):
        raise KeyboardInterrupt
    verb(interrupt)
    assert command_line.main(["doctor"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_doctor_tells_another_version_and_a_missing_package(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "locked_packages", lambda: {"pytest": "0.1", "no-such-package-here": "1.0"})
    finding = doctor.check_packages()
    assert finding.status == doctor.FAILURE and "no-such-package-here" in finding.found
    monkeypatch.setattr(doctor, "locked_packages", lambda: {"pytest": "0.1"})
    finding = doctor.check_packages()
    assert finding.status == doctor.WARNING and "instead of 0.1" in finding.found and "make setup" in finding.advice


def test_doctor_reports_for_machines(monkeypatch, tmp_path, capsys):
    for name in ("check_python", "check_packages", "check_ros", "check_gpu", "check_rendering"):
        monkeypatch.setattr(doctor, name, lambda name=name: doctor.Finding(name, doctor.OK, "fine"))
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert command_line.main(["doctor", "--json", str(tmp_path / "deep" / "out.json")]) == 1
    report = json.loads((tmp_path / "deep" / "out.json").read_text())
    assert report["healthy"] is False
    assert [check["name"] for check in report["checks"] if check["status"] == "failure"] == ["devel space"]
    assert "make setup" in capsys.readouterr().out
