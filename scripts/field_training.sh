#!/usr/bin/env bash
# From recorded bags of a scene that a checkpoint has not seen to a checkpoint that works there: every step is a command of the
# documents. A step whose result is there is left out, so the same command goes on where it was ended.
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

# step NAME RESULT COMMAND...: runs the command unless its result is there, and notes the seconds it took.
step() {
  local name="$1" result="$2" began
  shift 2
  if [ -e "$result" ]; then
    echo "field-training: $name is there ($result)"
    return
  fi
  echo "field-training: $name: $*"
  began="$(date +%s)"
  "$@"
  echo "$name $(($(date +%s) - began)) s" | tee -a "$OUT/times.txt"
}

record() {
  python -m hybridvla_ros.demos.field_record --out "$OUT" --episodes "$BAGS" --variation "$VARIATION"
  touch "$OUT/recorded"
}

evaluate() { # CHECKPOINT EPISODES RESULT
  hybridvla evaluate --checkpoint "$1" --variation "$VARIATION" --episodes "$2" --seed 2000001 --processes 2 --json "$3"
}

# choose_recipe: RECIPE, in float32 on a CPU that emulates bfloat16. A training goes on with the one it was begun with.
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

choose_recipe
step record "$OUT/recorded" record
step from-bags "$OUT/dataset" hybridvla dataset from-bags "$OUT/bags" --robot config/robots/sim_fr3.yaml \
  --policy-config config/policies/tiny.yaml -o "$OUT/dataset" --report "$OUT/dataset.html"
step before "$OUT/before.json" evaluate "$INIT" "$BEFORE" "$OUT/before.json"
step train "$OUT/checkpoint" hybridvla train --config "$RECIPE" --init "$INIT" \
  --data "$OUT/dataset" --work "$OUT/work" --out "$OUT/checkpoint"
step after "$OUT/after.json" evaluate "$OUT/checkpoint" "$EPISODES" "$OUT/after.json"

echo "field-training: seconds of each step are in $OUT/times.txt"
python - "$OUT" <<'PYTHON'
import json, sys
from pathlib import Path
for name in ("before", "after"):
    found = json.loads((Path(sys.argv[1]) / f"{name}.json").read_text())
    low, high = found["interval"]
    print(f"{name}: {found['successes']} of {found['episodes']} successful (95 % interval {low:.3f} to {high:.3f})")
PYTHON
