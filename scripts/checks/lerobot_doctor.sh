#!/usr/bin/env bash
# Checks a data set that this project writes with lerobot-doctor, in its own environment, because its packages need
# another numpy than ours. usage: scripts/checks/lerobot_doctor.sh [DATASET]   (default: writes the tests' small set)
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly ROOT
readonly DOCTOR="$ROOT/build/lerobot-doctor"

if [[ ! -x "$DOCTOR/bin/lerobot-doctor" ]]; then
  "$ROOT/.venv/bin/python" -m venv "$DOCTOR"
  "$DOCTOR/bin/pip" install --quiet lerobot-doctor==0.2.0
fi
dataset="${1:-}"
if [[ -z "$dataset" ]]; then
  folder="$(mktemp -d)"
  trap 'rm -rf "$folder"' EXIT
  dataset="$folder/toy"
  "$ROOT/scripts/with_env.sh" python "$ROOT/scripts/checks/write_toy_dataset.py" "$dataset"
fi
HF_HUB_OFFLINE=1 "$DOCTOR/bin/lerobot-doctor" check "$dataset"
