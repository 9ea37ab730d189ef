#!/usr/bin/env bash
# Goes from recorded bags of a scene that a checkpoint has not seen to a checkpoint that works there. Every step is a command from
# the documents. A step whose result exists is skipped, so the same command resumes where it stopped.
#   FIELD_OUT (out/field-training)   FIELD_BAGS (30)   FIELD_VARIATION (colour)   FIELD_BEFORE (20) and FIELD_EPISODES (50):
#   episodes of the evaluation before and after
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
readonly OUT="${FIELD_OUT:-out/field-training}" BAGS="${FIELD_BAGS:-30}" VARIATION="${FIELD_VARIATION:-colour}"
readonly BEFORE="${FIELD_BEFORE:-20}" EPISODES="${FIELD_EPISODES:-50}"
readonly INIT=checkpoints/tiny
RECIPE=config/training/small_finetune.yaml
mkdir -p "$OUT"

# timed NAME COMMAND...: runs the command and records the seconds it took.
timed() {
  local name="$1" began
  shift
  echo "field-training: $name: $*"
  began="$(date +%s)"
  "$@"
  echo "$name $(($(date +%s) - began)) s" | tee -a "$OUT/times.txt"
}

# step NAME RESULT COMMAND...: does the same, unless the result exists.
step() {
  local name="$1" result="$2"
  shift 2
  if [ -e "$result" ]; then
    echo "field-training: $name is there ($result)"
    return
  fi
  timed "$name" "$@"
}

# Refuses a folder whose contents come from other settings.
settings() {
  local asked="variation $VARIATION, $BAGS bags"
  if [ -e "$OUT/settings.txt" ] && [ "$(cat "$OUT/settings.txt")" != "$asked" ]; then
    echo "field-training: $OUT holds what was begun with $(cat "$OUT/settings.txt"), and this asks for $asked; choose another" \
      "FIELD_OUT, or remove the folder" >&2
    exit 1
  fi
  echo "$asked" >"$OUT/settings.txt"
}

record() {
  python -m hybridvla_ros.demos.field_record --out "$OUT" --episodes "$BAGS" --variation "$VARIATION"
  touch "$OUT/recorded"
}

# The command itself keeps a result of the same checkpoint, episodes and code.
evaluate() { # NAME CHECKPOINT EPISODES
  timed "$1" hybridvla evaluate --checkpoint "$2" --variation "$VARIATION" --episodes "$3" --seed 2000001 --processes 2 \
    --json "$OUT/$1.json"
}

# choose_recipe: sets RECIPE, in float32 on a CPU that emulates bfloat16. A training continues with the recipe it was started with.
choose_recipe() {
  local chosen="$OUT/recipe.yaml" slow
  if [ ! -e "$OUT/work" ] && [ ! -e "$OUT/checkpoint" ]; then
    rm -f "$chosen"
    slow="$(python -c 'from hybridvla_core.processor import slowness; print(slowness("bfloat16", "cpu"))')"
    if [ -n "$slow" ]; then
      sed 's/^precision: bfloat16/precision: float32/' "$RECIPE" >"$chosen.partial"
      mv "$chosen.partial" "$chosen"
      echo "field-training: $slow; $chosen is $RECIPE with precision: float32"
    fi
  fi
  [ ! -e "$chosen" ] || RECIPE="$chosen"
}

settings
choose_recipe
step record "$OUT/recorded" record
step from-bags "$OUT/dataset" hybridvla dataset from-bags "$OUT/bags" --robot config/robots/sim_fr3.yaml \
  --policy-config config/policies/tiny.yaml -o "$OUT/dataset" --report "$OUT/dataset.html"
evaluate before "$INIT" "$BEFORE"
step train "$OUT/checkpoint" hybridvla train --config "$RECIPE" --init "$INIT" \
  --data "$OUT/dataset" --work "$OUT/work" --out "$OUT/checkpoint"
evaluate after "$OUT/checkpoint" "$EPISODES"

echo "field-training: seconds of each step are in $OUT/times.txt"
python - "$OUT" <<'PYTHON'
import json, sys
from pathlib import Path
for name in ("before", "after"):
    found = json.loads((Path(sys.argv[1]) / f"{name}.json").read_text())
    low, high = found["interval"]
    print(f"{name}: {found['successes']} of {found['episodes']} successful (95 % interval {low:.3f} to {high:.3f})")
PYTHON
