#!/usr/bin/env bash
# The robot computer runs Python 3.8. This tests the safety filter, the contracts and the simulated rig under that
# interpreter, with the rig's pins, in its own environment (.venv38). If no 3.8 interpreter is found, it says so and passes:
# `make lint` then checks syntax and library for 3.8 statically. TEST38="robot_computer and not long" leaves out whole tasks.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly ROOT
readonly VENV="$ROOT/.venv38"
# shellcheck source=scripts/lib/common.sh
source "$ROOT/scripts/lib/common.sh"

PYTHON="$(python_of 3.8)"
if [ -z "$PYTHON" ]; then
  echo "test38: no Python 3.8 here (PYTHON38 can name one); its tests are left out, make lint checks 3.8 statically"
  exit 0
fi

LOCKS=("$ROOT"/requirements/noetic/{core,sim,test,cameras}.txt)
WANTED="$(hash_of "${LOCKS[@]}")"
if [ "$(cat "$VENV/.stamp" 2>/dev/null)" != "$WANTED" ] || ! "$VENV/bin/python" -c '' 2>/dev/null; then
  echo "test38: making .venv38 with $PYTHON and the rig's locks"
  rm -rf "$VENV"
  "$PYTHON" -m venv "$VENV"
  "$VENV/bin/python" -m pip --disable-pip-version-check --no-input -qq install pip==25.0.1
  "$VENV/bin/python" -m pip --disable-pip-version-check --no-input -qq install --no-deps \
    -r "${LOCKS[0]}" -r "${LOCKS[1]}" -r "${LOCKS[2]}" -r "${LOCKS[3]}"
  printf '%s\n' "$ROOT/src" >"$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/hybridvla.pth"
  printf '%s\n' "$WANTED" >"$VENV/.stamp"
fi

cd "$ROOT"
"$VENV/bin/python" -m compileall -q src
# Files with a marked test; other files may import what the robot computer lacks.
mapfile -t TESTS < <(grep -rl --include='test_*.py' 'pytest\.mark\.robot_computer' test | LC_ALL=C sort)
if [ "${#TESTS[@]}" -eq 0 ]; then
  echo "test38: no test of the robot computer's code found under test/" >&2
  exit 1
fi
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$VENV/bin/python" -m pytest -m "${TEST38:-robot_computer}" "${TESTS[@]}"
