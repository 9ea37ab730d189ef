#!/usr/bin/env bash
# Measures the timings of docs/performance.md on this machine, into out/bench (`hybridvla bench passes` counts passes).
# Run nothing else on the machine meanwhile.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT="${BENCH_OUT:-out/bench}"
ROUNDS="${BENCH_ROUNDS:-25}"
mkdir -p "$OUT"

one() {
  local name="$1"
  shift
  hybridvla bench --rounds "$ROUNDS" "$@" --json "$OUT/$name.json" --plot "$OUT/$name.svg"
  echo
}

one tiny --checkpoint checkpoints/tiny
one small-100m-float32 --preset small-100m --dtype float32
one small-100m-bfloat16 --preset small-100m --dtype bfloat16
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  one 7b-graphs --preset hybridvla-7b --dtype bfloat16 --device cuda --graphs on
  one 7b-eager --preset hybridvla-7b --dtype bfloat16 --device cuda --graphs off
  one 7b-dual --preset hybridvla-7b --dtype bfloat16 --device cuda --views 3 --action-dim 14
fi
hybridvla bench images --json "$OUT/images.json"
hybridvla bench staleness --json "$OUT/staleness.json"
echo "bench: results in $OUT"
