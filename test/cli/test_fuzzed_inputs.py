"""Every verb with rubbish in place of each of its files: one sentence names the file or the option, and the status is 1."""
from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pytest
from PIL import Image
from small_models import convert_arguments, released_run
from small_policy import write

from hybridvla_cli.__main__ import main
from hybridvla_core.paths import ROOT

#: What people put in place of a file.
RUBBISH = {
    "nothing": None, "empty": b"", "bytes": bytes(range(256)) * 9, "text": b"hello", "list": b"[1, 2]\n", "null": b"null\n",
    "deep": b"[" * 100000, "page": b"<!DOCTYPE html><html>Sign in</html>", "latin": "\u00e9: 1\n".encode("latin-1"),
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "zip": b"PK\x03\x04" + b"\0" * 60,
    "packed": gzip.compress(b"x" * 99), "other keys": json.dumps({"format": None, "model": [], "vla": 3, "arms": {}}).encode()}
ENDINGS = {"--image": ".png", "BAG": ".bag", "--convention": ".yaml", "--policy-config": ".yaml", "--robot-config": ".yaml",
           "--thresholds": ".yaml", "--topics": ".yaml", "--config": ".yaml", "--mixture": ".yaml"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make an intact checkpoint, picture and released run."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder / "checkpoint")
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(str(folder / "front.png"))
    released_run(folder / "source")
    return folder


def commands(place, out):
    """Return verb and option -> arguments with X where rubbish goes."""
    checkpoint = ["--checkpoint", str(place / "checkpoint")]
    predict = ["predict", "--image", str(place / "front.png"), "--instruction", "go", "--state", "0,0,0,0,0,0,0"]
    convert = convert_arguments(place / "source", out / "converted")
    replay = ["replay", str(out / "none.bag"), *checkpoint]
    bench = ["bench", "--rounds", "1", "--threads", "1"]
    evaluate = ["evaluate", "--episodes", "1", "--switch-episodes", "0"]
    train = ["train", "--work", str(out / "work"), "--out", str(out / "made")]
    tiny = ["--config", str(ROOT / "config/training/tiny_smoke.yaml")]

    def instead(arguments, option):
        at = arguments.index(option)
        return [*arguments[:at + 1], "X", *arguments[at + 2:]]

    return {
        "predict --checkpoint": [*predict, "--checkpoint", "X"], "predict --image": [*instead(predict, "--image"), *checkpoint],
        "parity FOLDER": ["parity", "X"], "convert RUN": ["convert", "X", *convert[2:]],
        "convert --dims": instead(convert, "--dims"), "convert --tokenizer": instead(convert, "--tokenizer"),
        "convert --convention": [*convert, "--convention", "X"], "bench --checkpoint": [*bench, "--checkpoint", "X"],
        "bench --passes": [*bench, *checkpoint, "--passes", "X"], "bench --compare": [*bench, *checkpoint, "--compare", "X:NAME"],
        "train --config": [*train, "--config", "X", "--data", str(out)], "train --data": [*train, *tiny, "--data", "X"],
        "evaluate --checkpoint": [*evaluate, "--checkpoint", "X"],
        "evaluate --robot-config": [*evaluate, *checkpoint, "--robot-config", "X"],
        "evaluate --policy-config": [*evaluate, *checkpoint, "--policy-config", "X"],
        "ablate --checkpoint": ["ablate", "modes", "--quick", "--checkpoint", "X", "--out", str(out / "tables")],
        "serve --checkpoint": ["serve", "--checkpoint", "X", "--port", "0"],
        "dataset inspect FOLDER": ["dataset", "inspect", "X"], "dataset stats FOLDER": ["dataset", "stats", "X"],
        "dataset merge FOLDER": ["dataset", "merge", "X", "X", "--output", str(out / "merged")],
        "dataset from-rlds FOLDER": ["dataset", "from-rlds", "X", "--output", str(out / "rlds")],
        "replay BAG": ["replay", "X", *checkpoint], "replay --checkpoint": ["replay", str(out / "none.bag"), "--checkpoint", "X"],
        "replay --policy-config": [*replay, "--policy-config", "X"], "replay --robot-config": [*replay, "--robot-config", "X"],
        "replay --thresholds": [*replay, "--thresholds", "X"], "replay --topics": [*replay, "--topics", "X"]}


NAMES = list(commands(ROOT, ROOT))


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_rubbish_in_the_place_of_a_file_is_one_sentence(place, tmp_path, capfd, name):
    what = name.split()[-1]
    arguments = commands(place, tmp_path)[name]
    wrong = []
    for kind, content in RUBBISH.items():
        path = tmp_path / f"rubbish-{kind.replace(' ', '-')}{ENDINGS.get(what, '.json' if what == '--dims' else '')}"
        if content is not None:
            path.write_bytes(content)
        wrong += judged(arguments, path, what, f"{name} on {kind}", capfd)
        path.unlink() if content is not None else None
    folder = tmp_path / "folder"
    folder.mkdir()
    wrong += judged(arguments, folder, what, f"{name} on an empty folder", capfd)
    for file in ("config.json", "MANIFEST.json", "dims.json", "meta", "a.npz", "features.json", "a.tfrecord", "b.bag"):
        (folder / file).write_bytes(RUBBISH["bytes"])
    wrong += judged(arguments, folder, what, f"{name} on a folder of rubbish", capfd)
    wrong += judged(arguments, tmp_path / os.fsdecode(b"r\xe9"), what, f"{name} on a name that is no text", capfd)
    assert not wrong, "\n".join(wrong)


def judged(arguments, path, what, case, capfd):
    """Return what is wrong with how a command ends; empty when it prints one sentence that names what was given."""
    try:
        status = main([argument.replace("X", str(path)) if argument in ("X", "X:NAME") else argument for argument in arguments])
    except SystemExit as end:
        status = end.code
    streams = capfd.readouterr()
    lines = [line for line in streams.err.replace("\r", "\n").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("hybridvla", "not replayed: "))]
    named = path.name.encode("utf-8", "replace").decode()
    problems = []
    if status != 1:
        problems.append(f"status {status}")
    if "Traceback" in streams.err or not said:
        problems.append("no sentence")
    if said and not any(word in line for line in said for word in (named, ascii(path.name)[1:-1], path.name, what)):
        problems.append("neither file nor option is named")
    if said and max(map(len, said)) > 1200:
        problems.append("a sentence without end")
    return [f"{case}: {', '.join(problems)}: {' | '.join(lines)[-300:]!r}"] if problems else []
