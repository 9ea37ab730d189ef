"""`hybridvla ablate --policy NAME=PLACE` with a policy on a server: how it is reached, and what is said if it is not."""
from __future__ import annotations

import json
import pickle

import pytest
import yaml
from remote_bench import observation

from hybridvla_cli.__main__ import main
from hybridvla_cli.ablate_parts import order, sweep
from hybridvla_core.evaluation.ablation.cells import Outcome
from hybridvla_core.paths import ROOT

KEY = "k" * 24


@pytest.fixture
def asked(monkeypatch):
    """Answer each cell without an episode, and list the shapes of the actions that the servers' policies predict."""
    found = []

    def run_cells(cells, bench, processes, done):
        pickle.dumps(bench)         # workers get it so
        for cell in cells:
            if cell.place:
                policy = bench.open_policy(cell)
                found.append(policy.predict(observation()).action.shape)
                policy.close()
            done(cell, Outcome(success=(True,) * cell.episodes, violations=(0,) * cell.episodes))
        return {}
    monkeypatch.setattr(sweep, "run_cells", run_cells)
    monkeypatch.setattr(order, "CONNECT_S", 0.2)
    return found


@pytest.fixture
def configured(tmp_path):
    """Return a function that writes a policy configuration with a section `remote`, and returns its path."""
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)

    def write(name, **remote):
        usual = yaml.safe_load((ROOT / "config/policies/tiny.yaml").read_text())
        (tmp_path / name).write_text(yaml.safe_dump({**usual, "backend": "remote", "remote": remote} if remote else usual))
        return str(tmp_path / name)
    return write


def ablate(tmp_path, *policies):
    options = [word for place in policies for word in ("--policy", place)]
    return main(["ablate", "modes", "--quick", "-o", str(tmp_path / "out"), *options])


def test_a_policy_configuration_says_how_to_reach_a_policy_that_wants_a_key(answering, asked, configured, tmp_path, capsys):
    url = f"ws://127.0.0.1:{answering(key=KEY)}"
    file = configured("theirs.yaml", url=url, key_file=str(tmp_path / "key"), connect_timeout_s=5.0)
    assert ablate(tmp_path, f"theirs={file}") == 0, capsys.readouterr().err
    assert asked == [(1, 7)] * 4
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["label"] for row in result["tables"][0]["rows"]][3:] == ["theirs"]
    assert f"--policy theirs={file}" in result["meta"]["command"]
    assert ablate(tmp_path, f"theirs={url}") == 1
    said = capsys.readouterr().err
    assert "status 401; check remote.key_file" in said and "name its file, FILE.yaml, in place of the address" in said
    assert ablate(tmp_path, f"theirs={file}", f"again={configured('more.yaml', url=url, key_file=str(tmp_path / 'key'))}") == 1
    assert f"--policy again: {url} is named twice, with different settings" in capsys.readouterr().err


def test_a_policy_on_another_computer_without_encryption_is_asked_where_the_file_says_so(asked, configured, tmp_path, capsys):
    url = "ws://192.0.2.1:8000"             # an address that nobody has
    assert ablate(tmp_path, f"theirs={url}") == 1
    said = capsys.readouterr().err
    assert "insecure_lan: true" in said and "name its file, FILE.yaml, in place of the address" in said
    assert len(said.splitlines()) == 1
    assert ablate(tmp_path, f"theirs={configured('lan.yaml', url=url, insecure_lan=True, connect_timeout_s=0.1)}") == 1
    said = capsys.readouterr().err
    assert f"{url} cannot be reached" in said and "FILE.yaml" not in said


@pytest.mark.parametrize("place, words", [("none.yaml", "none.yaml: cannot be read"), ("plain.yaml", "has no section `remote`"),
                                          ("ws://127.0.0.1", "write ws://HOST:PORT"), ("", "write NAME=CHECKPOINT, ")])
def test_a_place_that_names_no_policy_is_refused(asked, configured, tmp_path, capsys, place, words):
    configured("plain.yaml")
    assert ablate(tmp_path, f"theirs={tmp_path / place if place.endswith('yaml') else place}") == 1
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1 and asked == []
