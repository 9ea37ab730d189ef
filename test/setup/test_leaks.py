"""`make lint` finds committed keys and passwords and ignores the digests of this repository; `make audit` never takes silence
for a good answer."""
from __future__ import annotations

import importlib.util
import os
import subprocess

import pytest

from hybridvla_core.paths import ROOT

pytest.importorskip("detect_secrets")
_spec = importlib.util.spec_from_file_location("leaks", str(ROOT / "scripts/checks/leaks.py"))
leaks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(leaks)

PLANTED = {"policy.yaml": 'password: "' + "hunter2" + 'hunter2"\n', "tls.key": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIB\n",
           "upload.py": 'KEY = "AKIA' + 'IOSFODNN7EXAMPLX"\n', "robot.md": "wss://lab:" + "s3cr3tpass@192.168.1.20:8000\n"}


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_secret_is_found(tmp_path, name):
    (tmp_path / name).write_text(PLANTED[name])
    found = leaks.look([name], tmp_path)
    assert {finding[0] for finding in found} == {name} and {finding[3] for finding in found} == {1}


def test_digests_that_are_none_are_known_wherever_their_line_is():
    found = leaks.look(["checkpoints/tiny/MANIFEST.json", "scripts/checks/leaks.py", "docs/remote.md"])
    assert found and {finding[:3] for finding in found} <= leaks.known()


@pytest.mark.parametrize("body, status, said", [
    ("exit 0", 0, "requirements/noetic/torch.txt: no advisory"),
    ("echo 'jinja2: Dependency not found on PyPI and could not be audited'; exit 1", 1, "no source of advisories is reachable"),
    ("case \"$*\" in *noetic/torch.txt*) echo 'torch 2.4.1 GHSA-53q9'; exit 1;; esac", 1, "noetic/torch.txt: advisories, above")])
def test_an_audit_says_what_it_could_judge(tmp_path, body, status, said):
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!/bin/sh\ncase \"$*\" in *--strict*) ;; *) exit 0;; esac\n{body}\n")
    tool.chmod(0o755)
    done = subprocess.run([str(ROOT / "scripts/audit.sh")], env={**os.environ, "AUDIT": str(tool)}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding="utf-8")
    assert done.returncode == status and said in done.stdout, done.stdout
    assert ("no advisory for any" in done.stdout) == ("not found" not in body)
