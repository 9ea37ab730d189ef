"""Commands of the documents that need neither ROS nor much time, run exactly as written, in the order in which a reader would.

They are found by their beginning, so a command that is changed in its document is run as changed. The other commands are run
where their effect is tested; `test_documents.py` checks that all of them are valid.
"""
from __future__ import annotations

import re
import ssl
import subprocess
import threading

import numpy as np
import pytest
import toy_data
from PIL import Image
from test_documents import SHOWN, blocks

from hybridvla_cli.__main__ import main
from hybridvla_core.paths import ROOT


def line(document, beginning):
    """Return the only line of a document's blocks with this beginning."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = [found for found in blocks(text) if found.startswith(beginning)]
    assert len(set(found)) == 1, f"{document}: {beginning}: {found}"
    return found[0]


def arguments(document, *beginning):
    """Return the words after `hybridvla` of the only command of a document with this beginning."""
    found = [words[1:] for name, words in SHOWN if name == document and words[1:1 + len(beginning)] == list(beginning)]
    assert len(found) == 1, f"{document}: {beginning}: {found}"
    return found[0]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Make the folder where a reader types, with the clone's checkpoints and configuration."""
    for name in ("checkpoints", "config"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_key_and_the_certificate_of_a_remote_policy(desk):
    from remote_bench import Echo

    from hybridvla_core.policy.remote.dialect import OwnDialect
    from hybridvla_core.policy.remote.server import PolicyServer, ServerSettings
    from hybridvla_core.policy.remote.settings import read_key

    for beginning in ("python3 -c", "openssl req"):
        command = ["bash", "-ec", line("docs/remote.md", beginning)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        assert done.returncode == 0, done.stdout.decode()
    words = arguments("remote.md", "serve", "--checkpoint", "checkpoints/mine")
    key, certificate, private = (desk / words[words.index(option) + 1]
                                 for option in ("--key-file", "--tls-certificate", "--tls-key"))
    assert key.stat().st_mode & 0o777 == 0o600 and len(read_key(key)) > 30
    server = PolicyServer(Echo(), OwnDialect(), ServerSettings("0.0.0.0", 0, read_key(key), certificate, private))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.close()
    said = ssl._ssl._test_decode_cert(str(certificate))
    assert ("DNS", "gpu") in said["subjectAltName"] and ("IP Address", "192.168.10.2") in said["subjectAltName"]


def test_a_data_set_is_inspected_merged_and_exported(desk, capsys):
    for name in ("pads", "more"):
        toy_data.write(desk / "out" / name, seed=len(name))
    for beginning in (["inspect"], ["stats", "out/pads", "-o"], ["merge"], ["export"]):
        assert main(arguments("data.md", "dataset", *beginning)) == 0, capsys.readouterr().err
    assert "episodes: 8" in capsys.readouterr().out
    for made in ("dataset_statistics.json", "out/both/meta/info.json", "out/for_others/meta/info.json"):
        assert (desk / made).is_file(), made
    (desk / "out/mine").symlink_to(desk / "out/pads")
    assert main(arguments("first-day.md", "dataset", "inspect")) == 0


@pytest.mark.long
def test_one_action_from_one_picture(desk, capsys):
    Image.fromarray(np.full((256, 256, 3), 127, np.uint8)).save(str(desk / "front.png"))
    words = arguments("README.md", "predict")
    place = words.index("--state")
    words[place:place + 2] = ["--state=0.4,0,0.3,0,0,0,1"]      # the document leaves the value to the reader
    assert main(words) == 0, capsys.readouterr().err
    assert (desk / "out.json").is_file()


def test_make_lists_every_target_that_a_document_names():
    said = subprocess.run(["make", "-C", str(ROOT)], stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout
    listed = set(re.findall(r"^ {2}make (\S+)", said, re.MULTILINE))
    named = {word for _, words in SHOWN if words[0] == "make" for word in words[1:] if re.fullmatch(r"[a-z]\w*", word)}
    assert named <= listed and len(listed) > 15
