"""`hybridvla`: the verbs, the wording of errors, and what `doctor` finds."""
from __future__ import annotations

import argparse
import importlib
import json
import signal
import subprocess
import sys
import types

import pytest

from hybridvla_cli import __main__ as command_line
from hybridvla_cli import doctor
from hybridvla_cli.shared import failures
from hybridvla_core import errors
from hybridvla_core.files import write_json
from hybridvla_core.paths import ROOT


@pytest.fixture
def verb(monkeypatch):
    """Makes `hybridvla doctor` run a function of the test."""
    def install(run):
        module = types.ModuleType("hybridvla_cli.doctor")
        module.add_parser = lambda subparsers: subparsers.add_parser("doctor")
        module.run = run
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return install


@pytest.mark.parametrize("words", [["dataset", "from-bags", "a.bag", "-o", "out"], ["replay", "a.bag", "--checkpoint", "c"],
                                   ["evaluate", "--checkpoint", "c"], ["ablate", "modes"], ["doctor"]], ids=lambda it: it[0])
def test_every_verb_takes_both_names_of_the_robots_file(words):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"hybridvla_cli.{words[0]}").add_parser(parser.add_subparsers(dest="verb"))
    first, second = (vars(parser.parse_args([*words, option, "config/robots/fr3.yaml"]))
                     for option in ("--robot", "--robot-config"))
    assert first == second and "config/robots/fr3.yaml" in map(str, first.values())


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
    words = [name, *{"bench": ["filter"], "dataset": ["inspect"]}.get(name, [])]  # parts have options of their own
    with pytest.raises(SystemExit) as exit_info:
        command_line.main([*words, "--help"])
    assert exit_info.value.code == 0
    # A verb that runs until it is stopped has no result to write.
    assert ("--json" in capsys.readouterr().out) == (name not in ("serve", "watch"))


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


def test_what_a_library_raises_is_one_sentence_that_names_the_option(monkeypatch, capsys, tmp_path):
    """Not every error is foreseen; --debug shows where it came from."""
    def add_parser(subparsers):
        parser = subparsers.add_parser("doctor")
        parser.add_argument("--image")

    def run(args):
        def decode(name):
            raise ValueError("Decompressed Data\nToo Large")
        decode(args.image)
    module = types.ModuleType("hybridvla_cli.doctor")
    module.add_parser, module.run = add_parser, run
    monkeypatch.setitem(sys.modules, module.__name__, module)
    picture = str(tmp_path / "long.png")
    assert command_line.main(["doctor", "--image", picture]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and f"Decompressed Data Too Large at --image {picture}" in said and "--debug" in said
    with pytest.raises(ValueError, match="Too Large"):
        command_line.main(["doctor", "--image", picture, "--debug"])


def test_a_file_below_a_folder_that_was_given_is_named(tmp_path):
    shard = tmp_path / "shard.npz"
    shard.write_bytes(b"not a zip")

    def read(path):
        raise RuntimeError("bad zip")
    try:
        folder = str(tmp_path)  # found among the local variables, as in a real reader
        read(str(shard))
    except RuntimeError as error:
        said = failures.sentence(error, argparse.Namespace(data=folder))
    assert f"--data {tmp_path} ({shard})" in said


@pytest.mark.parametrize("error, words", [
    (ValueError("numpy.dtype size changed, may indicate binary incompatibility"), ["another numpy", "hybridvla doctor"]),
    (ImportError("libcudart.so.12: cannot open shared object file"), ["libcudart.so.12", "hybridvla doctor"]),
    (MemoryError(), ["not enough memory"]), (KeyError("norm_stats"), ["norm_stats", "KeyError", "--debug"]),
    (ValueError("x" * 5000), [" ..."])])
def test_errors_of_the_environment_say_what_to_do(error, words):
    said = failures.sentence(error)
    assert all(word in said for word in words) and len(said) < 600 and "\n" not in said


def test_a_verb_that_is_told_to_end_clears_away_what_it_was_writing(tmp_path):
    """SIGTERM and SIGHUP end a verb as Ctrl-C does."""
    code = ("import sys, time, types; from hybridvla_cli import __main__ as command_line\n"
            "module = types.ModuleType('hybridvla_cli.doctor')\n"
            "module.add_parser = lambda subparsers: subparsers.add_parser('doctor')\n"
            "def run(args):\n"
            "    try: print('writing', flush=True); time.sleep(60)\n"
            "    finally: print('cleared', flush=True)\n"
            "module.run = run; sys.modules[module.__name__] = module\n"
            "sys.argv[1:] = ['doctor']; command_line.entry()")
    for number in (signal.SIGTERM, signal.SIGHUP):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, encoding="utf-8") as process:
            assert process.stdout.readline() == "writing\n"
            process.send_signal(number)
            assert process.communicate(timeout=60)[0] == "cleared\n"
        assert process.returncode == 128 + number


def test_interrupting_is_quiet(verb, capsys):
    def interrupt(args):
        raise KeyboardInterrupt
    verb(interrupt)
    assert command_line.main(["doctor"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("installed, model, simulator", [
    (("base", "sim"), False, True), (("base", "vision"), True, False), (("base", "sim", "vision"), True, True), ((), True, True)])
def test_doctor_wants_no_package_that_the_set_up_was_told_to_leave_out(tmp_path, installed, model, simulator):
    """--without-policy, --without-ros, one whose torch could not be installed, and a .venv of other making."""
    for name in installed:
        (tmp_path / name).touch()
        (tmp_path / name.replace("base", "core")).touch()       # the lock's name on the rig
    pins = doctor.locked_packages(tmp_path)
    assert ("torch" in pins, "mujoco" in pins) == (model, simulator) and "numpy" in pins


def test_doctor_tells_another_version_and_a_missing_package(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "locked_packages", lambda: {"pytest": "0.1", "no-such-package-here": "1.0"})
    finding = doctor.check_packages()
    assert finding.status == doctor.FAILURE and "no-such-package-here" in finding.found
    monkeypatch.setattr(doctor, "locked_packages", lambda: {"pytest": "0.1"})
    finding = doctor.check_packages()
    assert finding.status == doctor.WARNING and "instead of 0.1" in finding.found and "make setup" in finding.advice


def test_doctor_reports_for_machines(monkeypatch, tmp_path, capsys):
    for name in ("check_python", "check_packages", "check_imports", "check_ros", "check_gpu", "check_rendering"):
        monkeypatch.setattr(doctor, name, lambda name=name: doctor.Finding(name, doctor.OK, "fine"))
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert command_line.main(["doctor", "--json", str(tmp_path / "deep" / "out.json")]) == 1
    report = json.loads((tmp_path / "deep" / "out.json").read_text())
    assert report["healthy"] is False
    assert [check["name"] for check in report["checks"] if check["status"] == "failure"] == ["devel space"]
    assert "make setup" in capsys.readouterr().out


def test_doctor_names_a_package_that_cannot_be_imported_and_goes_on(monkeypatch, tmp_path, capsys):
    """A package built for another numpy and a check that itself fails are findings; every other check still runs."""
    (tmp_path / "daqp.py").write_text("raise ValueError('numpy.dtype size changed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_COMPILED", ("numpy", "daqp"))

    def fails():
        raise ValueError("numpy.dtype size changed")
    monkeypatch.setattr(doctor, "check_gpu", fails)
    for name in ("check_python", "check_packages", "check_ros", "check_devel_space", "check_drivers", "check_rendering"):
        monkeypatch.setattr(doctor, name, lambda name=name: doctor.Finding(name, doctor.OK, "fine"))
    assert command_line.main(["doctor", "--checkpoint", str(ROOT / "checkpoints" / "tiny")]) == 1
    said = capsys.readouterr().out
    assert "unusable: daqp (ValueError: numpy.dtype size changed)" in said
    assert "cannot be checked: a compiled package was made for another numpy" in said and "checkpoint" in said.splitlines()[-1]


def test_a_progress_bar_that_a_signal_kept_from_being_made_says_nothing(monkeypatch, capsys):
    from tqdm import tqdm

    from hybridvla_cli.__main__ import _of_no_half_made_bar

    class Other:
        def __del__(self):
            raise AttributeError("of another thing")

    monkeypatch.setattr(sys, "unraisablehook", _of_no_half_made_bar)
    bar, other = tqdm.__new__(tqdm), Other()
    bar.disable = False          # as far as an interrupted progress bar has come
    del bar, other
    said = capsys.readouterr().err
    assert "of another thing" in said and "tqdm" not in said


@pytest.mark.parametrize("option, part", [(["--json", "o.json"], "filter"), (["--checkpoint", "/x"], "certificate"),
                                          (["--checkpoint", "/x"], "passes"), (["--rounds", "3"], "images")])
def test_what_stands_before_a_part_of_bench_is_refused_and_not_dropped(option, part, capsys):
    with pytest.raises(SystemExit):
        command_line.main(["bench", *option, part])
    assert f"{option[0]} stands before {part}; put it after the part" in capsys.readouterr().err


#: No input of these commands exists: if the target were checked later, the complaint would be about the input.
WRITES = [(["replay", "/none.bag", "--checkpoint", "/none"], ("--json", "--rows", "--junit", "--report")),
          (["bench", "--checkpoint", "/none"], ("--json", "--plot")), (["bench", "filter", "--robot", "/none"], ("--json",)),
          (["ablate", "all", "--checkpoint", "/none"], ("--json", "--docs", "--out")),
          (["predict", "--checkpoint", "/none", "--image", "/none", "--instruction", "go", "--state", "0"], ("--json",)),
          (["convert", "/none", "/none/out", "--camera-order", "front", "--final-norm", "variance"], ("--json",)),
          (["parity", "/none"], ("--json",)),
          (["dataset", "inspect", "/none"], ("--json", "--report")), (["dataset", "stats", "/none"], ("--json", "--output"))]


@pytest.mark.parametrize("words, option", [(words, option) for words, options in WRITES for option in options],
                         ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]))
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(words, option, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert command_line.main([*words, option, str(tmp_path / "file" / "result")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"hybridvla: {option} {tmp_path}") and "cannot be written (Not a directory)" in said
    assert command_line.main([*words, option, str(tmp_path / "new" / "result")]) != 0
    assert not (tmp_path / "new").exists(), "the folder may be one that the verb wants to make"
