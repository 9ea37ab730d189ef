"""Searches git's files for keys, tokens and passwords with detect-secrets; `.secrets.baseline` lists known false positives.

The tool's own hook rewrites the baseline whenever a line moves; here only the file, the kind and the digest of a finding count.

usage: leaks.py [--update]      --update records the current findings as known; review the difference before you commit it
"""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Iterable, List, Set, Tuple

from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import default_settings, get_settings, transient_settings

ROOT = Path(__file__).resolve().parents[2]
BASELINE = ROOT / ".secrets.baseline"
#: The kinds that could occur here; running all of detect-secrets' kinds takes three times as long.
KINDS = ("AWSKeyDetector", "Base64HighEntropyString", "BasicAuthDetector", "GitHubTokenDetector", "HexHighEntropyString",
         "JwtTokenDetector", "KeywordDetector", "OpenAIDetector", "PrivateKeyDetector", "PypiTokenDetector")
#: Files of numbers, not text.
LEFT_OUT = (".safetensors", ".png", ".obj", ".baseline", "recorded_interface.json")
Finding = Tuple[str, str, str, int]


def listed() -> List[str]:
    """Returns tracked and new files, relative to the clone."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    names = subprocess.run(command, cwd=str(ROOT), stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout.splitlines()
    return [name for name in names if not name.endswith(LEFT_OUT) and (ROOT / name).is_file()]


def look(names: Iterable[str], root: Path = ROOT) -> Set[Finding]:
    """Returns (file, kind, digest, line) of whatever looks like a secret. names: relative to root."""
    with default_settings():
        # A finding is not verified at the service that it may be for.
        filters = [entry for entry in get_settings().json()["filters_used"] if "verif" not in entry["path"]]
    with transient_settings({"plugins_used": [{"name": kind} for kind in KINDS], "filters_used": filters}):
        found = SecretsCollection(str(root))
        for name in names:
            found.scan_file(name)
    return {(name, secret.type, secret.secret_hash, secret.line_number) for name, secret in found}


def known() -> Set[Tuple[str, str, str]]:
    """Returns what the baseline lists."""
    results = json.loads(BASELINE.read_text(encoding="utf-8"))["results"] if BASELINE.is_file() else {}
    return {(name, entry["type"], entry["hashed_secret"]) for name, entries in results.items() for entry in entries}


def main(arguments: List[str]) -> int:
    """Prints every finding that is not known; returns 1 if there is any."""
    found = sorted(look(listed()))
    if "--update" in arguments:
        results = {name: [{"type": kind, "hashed_secret": digest} for file, kind, digest, _ in found if file == name]
                   for name in sorted({finding[0] for finding in found})}
        BASELINE.write_text(json.dumps({"results": results}, indent=1) + "\n", encoding="utf-8")
        return 0
    accepted = known()
    new = [finding for finding in found if finding[:3] not in accepted]
    for name, kind, _, line in new:
        print(f"{name}:{line}: looks like a secret ({kind}); take it out, or run scripts/checks/leaks.py --update if it is none")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
