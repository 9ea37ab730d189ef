#!/usr/bin/env bash
# make audit: checks the locks against the advisories of the Python package index, with pip-audit in its own environment. It needs
# an index that serves advisories; without one it says so, instead of reporting no findings. AUDIT names another pip-audit.
set -uo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly ROOT
readonly VENV="$ROOT/build/audit"
readonly LOCK="$ROOT/requirements/debian12/audit.txt"
TOOL="${AUDIT:-$VENV/bin/pip-audit}"

if [ -z "${AUDIT:-}" ] && ! cmp -s "$LOCK" "$VENV/.made"; then
  rm -rf "$VENV"
  "$ROOT/.venv/bin/python" -m venv "$VENV" &&
    "$VENV/bin/python" -m pip --disable-pip-version-check --no-input -q install --no-deps -r "$LOCK" || exit 1
  cp "$LOCK" "$VENV/.made"
fi

STATUS=0
for lock in "$ROOT"/requirements/{debian12,noetic}/*.txt; do
  name="requirements/${lock#"$ROOT/requirements/"}"
  case "$name" in */apt*) continue ;; esac
  # Strict: a package that cannot be judged is an error, not a package without advisories.
  if said="$("$TOOL" --strict --no-deps --disable-pip --progress-spinner off -r "$lock" 2>&1)"; then
    echo "audit: $name: no advisory for any of its packages"
    continue
  fi
  STATUS=1
  if grep -qE 'not found on PyPI|ConnectionError|Could not connect|Name or service not known|Max retries' <<<"$said"; then
    echo "audit: no source of advisories is reachable from here, so nothing was judged from $name on; run this where the package" \
      "index itself is reached ($(tail -n 1 <<<"$said"))" >&2
    break
  fi
  printf '%s\naudit: %s: advisories, above\n' "$said" "$name" >&2
done
exit "$STATUS"
