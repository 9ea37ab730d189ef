#!/usr/bin/env bash
# Measures all GPU figures of docs/performance.md, in one table: scripts/gpu_report.sh [OUT]. Needs the Python packages of
# the model (requirements/debian12/{base,vision}.txt or requirements/noetic/{core,policy,vision}.txt name them; numpy, scipy,
# pillow, timm, safetensors, tokenizers beside torch), but no network and no ROS.
# GPU_REPORT_SECONDS limits the total time (480); parts that do not fit are named.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT="${1:-out/gpu}"
ROUNDS="${BENCH_ROUNDS:-20}"
LIMIT="${GPU_REPORT_SECONDS:-480}"
DEVICE="${GPU_REPORT_DEVICE:-cuda}"
PRESET="${GPU_REPORT_PRESET:-hybridvla-7b}"
PYTHON="${PYTHON:-python3}"
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"

case "$ROUNDS$LIMIT" in
  *[!0-9]*)
    echo "gpu_report: BENCH_ROUNDS and GPU_REPORT_SECONDS are whole numbers" >&2
    exit 1
    ;;
esac
"$PYTHON" - "$DEVICE" <<'PY'
import importlib.util
import sys

needed = ("torch", "numpy", "scipy", "PIL", "cv2", "timm", "safetensors", "tokenizers", "yaml")
missing = [name for name in needed if importlib.util.find_spec(name) is None]
if missing:
    sys.exit(f"gpu_report: {', '.join(missing)} missing for {sys.executable}; install them, or name another Python by PYTHON=")
import torch

if sys.argv[1] == "cuda" and not torch.cuda.is_available():
    sys.exit("gpu_report: torch sees no GPU here (no card, no driver, a driver older than torch's toolkit, or torch for the "
             "processor); `hybridvla doctor` says more")
PY
mkdir -p "$OUT"
for name in graphs certificate compiled precision fp8 two_arms_three_views eager int8 int4 certificate_bfloat16; do
  rm -f "$OUT/$name.json"
done
SECONDS=0

# part NAME ARGUMENTS...: runs one bench if there is time left for it.
part() {
  local name="$1" left=$((LIMIT - SECONDS))
  shift
  if [ "$left" -lt 15 ]; then
    echo "gpu_report: no time left for $name" | tee -a "$OUT/left_out.txt"
    return
  fi
  timeout "$left" "$PYTHON" -m hybridvla_cli bench "$@" --device "$DEVICE" --json "$OUT/$name.json" >"$OUT/$name.log" 2>&1 ||
    { echo "gpu_report: $name failed or ran out of time: $(tail -n 1 "$OUT/$name.log")" | tee -a "$OUT/left_out.txt"; }
}

rm -f "$OUT/left_out.txt"
timed=(--preset "$PRESET" --dtype bfloat16 --rounds "$ROUNDS")
part graphs "${timed[@]}"
part certificate certificate --preset tiny --observations 40
part compiled "${timed[@]}" --compile auto
part precision --data config/benchmark/observations.npz --dtype bfloat16 --baseline float32 --precision-report full fp8 int8 int4
part fp8 "${timed[@]}" --compile auto --precision fp8
part two_arms_three_views "${timed[@]}" --views 3 --action-dim 14
part eager "${timed[@]}" --graphs off
part int8 "${timed[@]}" --compile auto --precision int8
part int4 "${timed[@]}" --precision int4
part certificate_bfloat16 certificate --preset "$PRESET" --dtype bfloat16 --observations 10

"$PYTHON" - "$OUT" <<'PY'
import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])
stages = ("preprocess", "vision", "prefix", "denoise", "decode")
lines = ["| ms, medians | " + " | ".join(stages) + " | full, mean over passes | diffusion | ratio | cache's gain | kernels or "
         "operations | memory over weights and cache |", "|---" * 12 + "|"]
device = ""
compiling = ("compiled", "fp8", "int8")
for name in ("graphs", "compiled", "fp8", "int8", "int4", "two_arms_three_views", "eager"):
    file = folder / f"{name}.json"
    if not file.is_file():
        continue
    result = json.loads(file.read_text())
    full, diffusion = result["modes"]["full"], result["modes"]["diffusion"]
    counts = result["counts"].get("kernels", result["counts"]["operations"])
    device = (f"{result['device']}, {result['subject']}, {result['dtype']}; {result['roofline']['bandwidth_gb_s']} GB/s reading, "
              f"{result['roofline']['copy_gb_s']} copying, {result['roofline']['matrix_tflop_s']} TFLOP/s")
    row = [f"{full['stages'][s]['median_ms']:.2f}" if s in full["stages"] else "" for s in stages]
    row += [f"{full['mean_of_medians_ms']:.2f}", f"{diffusion['median_ms']:.2f}",
            f"{result['ratios']['full_over_diffusion']:.3f}", f"{result['ratios']['kv_cache_speedup']:.2f}", str(counts["all"]),
            str(result["memory"].get("peak_over_weights_and_cache", ""))]
    lines.append(f"| {name}{'' if name not in compiling or result['compiled'] else ' (failed: as written)'} | {' | '.join(row)} |")
for name in ("certificate", "certificate_bfloat16"):
    file = folder / f"{name}.json"
    if file.is_file():
        found = json.loads(file.read_text())
        lines.append(f"\n{name}: {found['same_tokens']} of {found['predictions']} with the same tokens, {found['same_decisions']} "
                     f"with the same decision, {found['different_beyond_margins']} different beyond the margins")
file = folder / "precision.json"
if file.is_file():
    found = json.loads(file.read_text())
    lines += [f"\n{found['checkpoint']}, {found['observations']} observations in {found['dtype']}, beside full weights in "
              f"{found['baseline']['dtype']}", "| precision | mm: median | p99 | largest | degrees: largest | gates flip | tokens "
              "that differ | bits a weight |", "|---" * 8 + "|"]
    lines += [f"| {name} | {row['median_mm']:.3f} | {row['p99_mm']:.3f} | {row['largest_mm']:.3f} | {row['largest_degrees']:.4f} | "
              f"{row['gates_flip']:.3f} | {row['tokens_differ']:.3f} | {row['bits']:.1f} |"
              for name, row in found["precisions"].items()]
(folder / "table.md").write_text("\n".join([device, "", *lines]) + "\n")
print((folder / "table.md").read_text())
PY
echo "gpu_report: $SECONDS s; table and results in $OUT"
[ ! -e "$OUT/left_out.txt" ]
