#!/usr/bin/env bash
# Tests the model with other versions: oracle, parity, conversion and tokenizer tests with the oldest and the newest supported
# torch and transformers, each in its own environment under .matrix/. Prints a table.
# MATRIX="pins newest oldest" chooses rows. The newest row runs under Python 3.12 if there is one (PYTHON312 can name it), else
# under 3.11. The oldest row runs under 3.8 (PYTHON38) and is left out without it.
set -uo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly ROOT
cd "$ROOT" || exit 1
# shellcheck source=scripts/lib/common.sh
source "$ROOT/scripts/lib/common.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
mapfile -t TESTS < <(grep -rl --include='test_*.py' 'pytest\.mark\.versions' test | LC_ALL=C sort)
readonly TESTS

pip_in() {
  local folder="$1"
  shift
  "$folder/bin/python" -m pip --disable-pip-version-check --no-input -qq install "$@" 2>&1 | grep -v '^WARNING' || true
  return "${PIPESTATUS[0]}"
}

# make_environment NAME PYTHON WITH_DEPENDENCIES|"" WITHOUT_DEPENDENCIES...: does nothing when the stamp matches.
make_environment() {
  local folder="$ROOT/.matrix/$1" python="$2" with="$3" wanted lock arguments=()
  shift 3
  wanted="$(hash_of scripts/tools/stub_cuda.py ${with:+"$with"} "$@") $python"
  if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$wanted" ] && "$folder/bin/python" -c '' 2>/dev/null; then
    return 0
  fi
  rm -rf "$folder"
  "$python" -m venv "$folder" || return 1
  pip_in "$folder" pip==25.0.1 || return 1
  for lock in "$@"; do arguments+=(-r "$lock"); done
  pip_in "$folder" --no-deps "${arguments[@]}" || return 1
  if [ -n "$with" ]; then
    pip_in "$folder" -r "$with" || return 1
  fi
  "$folder/bin/python" scripts/tools/stub_cuda.py "$(site_of "$folder")" || return 1
  printf '%s\n' "$ROOT/src" >"$(site_of "$folder")/hybridvla.pth"
  printf '%s\n' "$wanted" >"$folder/.stamp"
}

site_of() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'; }

versions() {
  "$1" -c 'import platform
from importlib.metadata import version
names = ("torch", "transformers", "tokenizers", "timm", "numpy")
print(platform.python_version(), *(version(name) for name in names))' 2>/dev/null || echo "- - - - - -"
}

ROWS=()
STATUS=0
# row NAME PYTHON: runs the tests and stores a line for the table.
row() {
  local name="$1" python="$2" started=$SECONDS log="$ROOT/.matrix/$1.log" result columns
  if "$python" -m pytest -q -m versions -p no:cacheprovider "${TESTS[@]}" >"$log" 2>&1; then
    result=passed
  else
    STATUS=1
    tail -n 40 "$log"
    result="FAILED (.matrix/$name.log)"
  fi
  read -r -a columns < <(versions "$python")
  ROWS+=("$(printf '%-7s ' "$name")$(printf '%-13s ' "${columns[@]}")$(printf '%4d s  %s' "$((SECONDS - started))" "$result")")
}

mkdir -p .matrix
PYTHON="$(python_of 3.8)"
PYTHON_NEWEST="$(python_of 3.12)"
WANTED=" ${MATRIX:-pins newest oldest} "
OLDEST=""
if [[ "$WANTED" == *" oldest "* ]]; then
  if [ -z "$PYTHON" ]; then
    echo "matrix: no Python 3.8 here (PYTHON38 can name one); the row oldest is left out"
  else
    # One environment comes from the network; the other may come from the disk.
    make_environment oldest "$PYTHON" "" requirements/noetic/core.txt requirements/noetic/policy.txt requirements/noetic/test.txt \
      requirements/noetic/vision.txt requirements/noetic/torch.txt >.matrix/oldest.setup 2>&1 &
    OLDEST=$!
  fi
fi
if [[ "$WANTED" == *" newest "* ]]; then
  if make_environment newest "${PYTHON_NEWEST:-/usr/bin/python3}" requirements/matrix/newest.txt requirements/matrix/newest-torch.txt; then
    row newest .matrix/newest/bin/python
  else
    STATUS=1
    ROWS+=("newest  FAILED: its environment could not be made")
  fi
fi
if [[ "$WANTED" == *" pins "* ]]; then
  row pins .venv/bin/python
fi
if [ -n "$OLDEST" ]; then
  if wait "$OLDEST"; then
    row oldest .matrix/oldest/bin/python
  else
    STATUS=1
    cat .matrix/oldest.setup
    ROWS+=("oldest  FAILED: its environment could not be made")
  fi
fi

printf '\n%-7s ' row
printf '%-13s ' python torch transformers tokenizers timm numpy
printf '%6s  %s\n' time result
printf '%s\n' "${ROWS[@]}"
exit "$STATUS"
