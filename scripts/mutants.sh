#!/usr/bin/env bash
# Mutation testing of the safety filter; takes the options of scripts/tools/mutants.py. Runs one process, beside other work.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly ROOT
# shellcheck source=scripts/lib/common.sh
source "$ROOT/scripts/lib/common.sh"
LOCK="$ROOT/requirements/debian12/mutants.txt"
STAMP="$ROOT/.venv/.stamps/mutants"

if [ "$(cat "$STAMP" 2>/dev/null)" != "$(hash_of "$LOCK")" ]; then
  echo "mutants: installing $(grep -c == "$LOCK") packages into .venv"
  "$ROOT/.venv/bin/python" -m pip --disable-pip-version-check --no-input -qq install --no-deps -r "$LOCK"
  hash_of "$LOCK" >"$STAMP"
fi
export OMP_NUM_THREADS=1
exec nice -n 10 "$ROOT/.venv/bin/python" "$ROOT/scripts/tools/mutants.py" "$@"
