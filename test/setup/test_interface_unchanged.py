"""What labs rely on still exists: names in files, verbs and options, `--json` keys, as an earlier state of 0.1.0 had them.

The readers of test/support/interface.py wrote `recorded_interface.json` from that state. Additions are allowed.
Removed from it were config/training/tiny.yaml and tiny_finetune.yaml, with the recipe that read them, and two topics of
config/robots/sim_dual.yaml that no adapter read.
The recorded topics and services of running launch files are compared in test/rigs/test_graph_interface.py.
"""
from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

import interface
import pytest
import replay_bag

from hybridvla_cli.__main__ import main
from hybridvla_core.paths import ROOT

RECORDED = json.loads((Path(__file__).parent / "recorded_interface.json").read_text(encoding="utf-8"))
STATE = "0.4,0,0.3,3.14,0,0,1"


@pytest.fixture(scope="module")
def now():
    return interface.files(ROOT)


@pytest.mark.parametrize("part", ["messages", "reconfigure", "launch", "config", "nodes", "make"])
def test_every_recorded_name_is_still_there(now, part):
    assert interface.missing(RECORDED[part], now[part], part) == []


@pytest.mark.parametrize("verb", sorted({words.split()[0] for words in RECORDED["verbs"]}))
def test_every_recorded_option_is_still_there(verb):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"hybridvla_cli.{verb}").add_parser(parser.add_subparsers(dest="verb"))
    recorded = {words: names for words, names in RECORDED["verbs"].items() if words.split()[0] == verb}
    assert interface.missing(recorded, interface.options(parser)) == []


@pytest.fixture
def arguments(tmp_path):
    """Return a function that gives the command line for a verb's result, by the words that lead to the verb."""
    def of(words):
        tiny = ["--checkpoint", str(ROOT / "checkpoints" / "tiny")]
        if words == "predict":
            from PIL import Image

            Image.new("RGB", (320, 240), (90, 90, 90)).save(str(tmp_path / "view.png"))
            return [*tiny, "--image", str(tmp_path / "view.png"), "--instruction", "put the red block on the green pad",
                    "--state", STATE]
        if words == "replay":
            bag = replay_bag.write(tmp_path / "motion.bag", replay_bag.Motion(4.0))
            return [str(bag), *tiny, "--rate", "2", "--no-senses"]
        return {"bench filter": ["--ticks", "300"], "doctor": [],
                "evaluate": [*tiny, "--episodes", "1", "--seed", "2000001"]}[words]
    return of


@pytest.mark.long
@pytest.mark.parametrize("words", sorted(RECORDED["json"]))
def test_every_recorded_key_of_a_result_is_still_there(words, arguments, tmp_path):
    out = tmp_path / "out.json"
    main([*words.split(), *arguments(words), "--json", str(out)])
    found = interface.keys(json.loads(out.read_text(encoding="utf-8")))
    assert interface.missing(RECORDED["json"][words], found, words) == []


def test_what_has_gone_is_named():
    recorded = {"launch": {"a.launch": ["kept", "gone"], "b.launch": []}}
    lost = interface.missing(recorded, {"launch": {"a.launch": ["kept", "new"]}})
    assert lost == ["launch/a.launch: gone", "launch/b.launch"]
    assert interface.missing(["a.list[]", "a.empty"], ["a.list", "a.empty[].more"]) == []
