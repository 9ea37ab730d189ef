#!/usr/bin/env bash
# Fetches the wheels of requirements/anywhere.txt for a machine without a network; run it on a machine with one:
#   scripts/anywhere/wheels.sh [FOLDER] [PYTHON_VERSION]      (wheels, 3.12)
set -euo pipefail

CALLER="$PWD"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
FOLDER="${1:-wheels}"
case "$FOLDER" in /*) ;; *) FOLDER="$CALLER/$FOLDER" ;; esac
PYTHON="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"

# pip matches platform names literally, so this lists glibc 2.17 to 2.39, newest first.
platforms=()
for minor in $(seq 39 -1 17); do platforms+=(--platform "manylinux_2_${minor}_x86_64"); done
"$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version "${2:-3.12}" \
  "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --dest "$FOLDER" \
  --requirement requirements/anywhere.txt
du -sh "$FOLDER"
