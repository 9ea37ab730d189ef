"""bfloat16 on a CPU that emulates it: everything that loads a model or trains warns before it begins, and never refuses."""
from __future__ import annotations

import importlib.util
import logging
import re

import numpy as np
import pytest
from PIL import Image
from small_policy import observation, write

from hybridvla_cli.__main__ import main
from hybridvla_cli.doctor_parts import robot as doctor_robot
from hybridvla_cli.doctor_parts.findings import OK, WARNING, Finding
from hybridvla_cli.train_parts import general
from hybridvla_core import processor
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.model.shrunk.choose import check_dtype
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.predictor import Policy

ZEN_3, ZEN_4 = "flags\t\t: fpu avx2 vaes\n", "flags\t\t: fpu avx2 avx512f avx512_bf16 vaes\n"
SAID = "this CPU has no bfloat16 arithmetic"


@pytest.fixture
def flags(tmp_path, monkeypatch):
    """Return a function that sets the flags which the CPU reports."""
    def say(text):
        (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some bf16 CPU\n" + text)
        monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    return say


def said(caplog):
    return [record.getMessage() for record in caplog.records if SAID in record.getMessage() and record.levelno == logging.WARNING]


@pytest.mark.parametrize("text, multiplies", [
    (ZEN_3, False), (ZEN_4, True), ("flags\t\t: amx_bf16 amx_tile\n", True), ("Features\t: fp asimd bf16\n", True),
    ("Features\t: fp asimd atomics\n", False), ("cpu\t\t: POWER9\n", None)])
def test_what_a_processor_says_of_itself(flags, text, multiplies):
    flags(text)
    assert processor.multiplies_bfloat16() is multiplies
    assert bool(processor.slowness("bfloat16", "cpu")) == (multiplies is False)
    assert processor.slowness("float32", "cpu") == processor.slowness("bfloat16", "cuda:0") == ""


def test_where_nothing_says_it_nothing_is_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "absent")
    assert processor.multiplies_bfloat16() is None and processor.slowness("bfloat16", "cpu") == ""


def test_a_policy_warns_at_start_and_predicts(flags, caplog, tmp_path):
    folder = write(tmp_path / "small")
    flags(ZEN_3)
    policy = Policy.from_checkpoint(folder, dtype="bfloat16")
    assert len(said(caplog)) == 1 and "use dtype float32, which takes twice the memory" in said(caplog)[0]
    assert np.isfinite(policy.predict(observation()).action).all() and len(said(caplog)) == 1
    caplog.clear()
    Policy.from_checkpoint(folder)
    flags(ZEN_4)
    Policy.from_checkpoint(folder, dtype="bfloat16")
    check_dtype("bfloat16", "cpu")
    assert not said(caplog)


def test_the_verbs_warn(flags, caplog, tmp_path, monkeypatch):
    from hybridvla_core.benchmark import roofline

    def stop(*_):
        raise HybridVLAError("that is far enough")

    folder = write(tmp_path / "small")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(str(tmp_path / "front.png"))
    flags(ZEN_3)
    assert main(["predict", "--checkpoint", str(folder), "--image", str(tmp_path / "front.png"), "--instruction", "go",
                 "--state=0,0,0,0,0,0,0", "--dtype", "bfloat16"]) == 0
    assert len(said(caplog)) == 1
    monkeypatch.setattr(roofline, "measure_device", stop)
    assert main(["bench", "train", "--preset", "tiny", "--dtype", "bfloat16"]) == 1
    assert len(said(caplog)) == 2 and "use --dtype float32" in said(caplog)[1]


@pytest.mark.parametrize("text, precision, count", [(ZEN_3, "bfloat16", 1), (ZEN_3, "float32", 0), (ZEN_4, "bfloat16", 0)])
def test_a_training_warns_before_its_data_are_made(flags, caplog, tmp_path, monkeypatch, text, precision, count):
    def made(*_):
        assert len(said(caplog)) == count
        raise HybridVLAError("data are made here")

    flags(text)
    monkeypatch.setattr(general, "demonstrations", made)
    recipe = (ROOT / "config/training/tiny_general.yaml").read_text()
    (tmp_path / "own.yaml").write_text(re.sub("^precision: .*", f"precision: {precision}", recipe, flags=re.MULTILINE))
    assert main(["train", "--config", str(tmp_path / "own.yaml"), "--work", str(tmp_path / "work")]) == 1
    assert len(said(caplog)) == count
    assert all("write precision: float32 into the recipe (a run that was begun keeps its own" in text for text in said(caplog))


@pytest.mark.parametrize("text, begun, words", [(ZEN_3, False, "a copy of the recipe with precision: float32"), (ZEN_3, True, ""),
                                                (ZEN_4, False, "")])
def test_a_training_anywhere_warns_before_its_data_as_long_as_a_recipe_can_be_chosen(flags, tmp_path, capsys, text, begun, words):
    spec = importlib.util.spec_from_file_location("recipe_of_anywhere", str(ROOT / "scripts/anywhere/recipe.py"))
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    flags(text)
    (tmp_path / "recipe.yaml").write_text((ROOT / "config/training/suite.yaml").read_text())
    if begun:
        (tmp_path / "train").mkdir()
    script.warn(tmp_path, "cpu")
    found = capsys.readouterr().err
    assert (SAID in found and words in found) if words else not found


@pytest.mark.parametrize("text, changes, names", [
    (ZEN_3, {"dtype": "bfloat16"}, ["processor", "graph"]), (ZEN_3, {}, ["graph"]), (ZEN_4, {"dtype": "bfloat16"}, ["graph"]),
    (ZEN_3, {"dtype": "bfloat16", "device": "cuda"}, ["graph"])])
def test_the_doctor_has_a_line_where_a_policy_is_configured_so(flags, tmp_path, monkeypatch, text, changes, names):
    flags(text)
    monkeypatch.setattr(doctor_robot, "look", lambda *_: Finding("graph", OK, "", ""))
    policy = (ROOT / "config/policies/tiny.yaml").read_text()
    for key, value in changes.items():
        policy = re.sub(f"^{key}: .*", f"{key}: {value}", policy, flags=re.MULTILINE)
    file = tmp_path / "own.yaml"
    file.write_text(policy)
    findings = list(doctor_robot.findings_of(ROOT / "config/robots/sim_fr3.yaml", file, None, ()))
    assert [finding.name for finding in findings] == names
    if len(findings) == 2:
        assert findings[0].status == WARNING and SAID in findings[0].found
        assert f"write dtype: float32 into {file}" in findings[0].advice
