#!/usr/bin/env bash
# Builds the documents and the code reference as pages into out/docs, in an environment of its own.
# usage: scripts/docs.sh [--only-install]
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly ROOT
readonly VENV="$ROOT/build/docs"
readonly LOCK="$ROOT/requirements/debian12/docs.txt"

if ! cmp -s "$LOCK" "$VENV/.made"; then
  rm -rf "$VENV"
  "$ROOT/.venv/bin/python" -m venv "$VENV"
  "$VENV/bin/python" -m pip --disable-pip-version-check --no-input -q install --no-deps -r "$LOCK"
  cp "$LOCK" "$VENV/.made"
fi
if [[ "${1:-}" != "--only-install" ]]; then
  cd "$ROOT"
  PYTHONPATH='' DISABLE_MKDOCS_2_WARNING=true "$VENV/bin/python" -m mkdocs build --quiet --strict --site-dir "$ROOT/out/docs"
  echo "docs: open $ROOT/out/docs/index.html"
fi
