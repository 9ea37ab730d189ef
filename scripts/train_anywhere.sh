#!/usr/bin/env bash
# Makes data, trains and evaluates in slices: scripts/train_anywhere.sh suite|dual [OUT]. Each call works for at most
# TRAIN_SECONDS (500) and resumes where the last one stopped. It exits with 0 when all is done and with 75 when there is more to do:
#   until scripts/train_anywhere.sh suite; do [ $? -eq 75 ] || break; done
# Needs Python with torch and numpy, but no network: missing packages come from a folder of wheels (TRAIN_WHEELS, wheels). Images
# are drawn with EGL if it is available. With a GPU, the GPU recipe is used. What is worth keeping is stored in OUT/pack, in files of
# at most 15 MiB: cat OUT/pack/result.tar.gz.* | tar xz
# These variables change what is done; keep them the same for all slices of a run: TRAIN_COUNT (scenes of each task, 800), TRAIN_STATES
# (of each scene, 6), TRAIN_EPISODES, TRAIN_SEEDS, TRAIN_MODES, TRAIN_PROCESSES, TRAIN_RECIPE, TRAIN_INIT (a checkpoint; none: -),
# TRAIN_DEVICE, TRAIN_PACK_STATE (1: also packs the last state of the training) and PYTHON. Relative paths start at the caller's folder.
# Only one call at a time works in OUT, and a call that is stopped stops its work.
set -euo pipefail

CALLER="$PWD"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# of_caller PATH: resolves a given path from the caller's folder.
of_caller() { case "$1" in '' | - | /*) printf '%s' "$1" ;; *) printf '%s' "$CALLER/$1" ;; esac; }

TRAIN_INIT="$(of_caller "${TRAIN_INIT:-}")"
TRAIN_RECIPE="$(of_caller "${TRAIN_RECIPE:-}")"
WHAT="${1:-}"
case "$WHAT" in
  suite) RIG=fr3 INIT="${TRAIN_INIT:-checkpoints/tiny}" ;;
  dual) RIG=agilex INIT="${TRAIN_INIT:-checkpoints/suite}" ;;
  *)
    echo "train_anywhere: say suite or dual: scripts/train_anywhere.sh suite|dual [OUT]" >&2
    exit 2
    ;;
esac
OUT="$(of_caller "${2:-}")"
OUT="${OUT:-out/anywhere/$WHAT}"
PYTHON="${PYTHON:-python3}"
case "$PYTHON" in */*) PYTHON="$(of_caller "$PYTHON")" ;; esac
LIMIT="${TRAIN_SECONDS:-500}"
# Many scenes with few states each give as many images as few scenes, but more layouts. A scene costs 0.5 s of a core, an image 4 ms.
COUNT="${TRAIN_COUNT:-800}"
STATES="${TRAIN_STATES:-6}"
EPISODES="${TRAIN_EPISODES:-20}"
SEEDS="${TRAIN_SEEDS:-2000001}"
MODES="${TRAIN_MODES:-ensemble diffusion autoregressive}"
PROCESSES="${TRAIN_PROCESSES:-$(nproc)}"
WHEELS="$(of_caller "${TRAIN_WHEELS:-}")"
WHEELS="${WHEELS:-wheels}"
MORE=75        # sysexits.h: try again
LEAST=20       # s; with less time left, nothing new is started
BLOCK=10       # episodes that are evaluated at once
MARK=.train_anywhere
PART=15728640  # maximum size of a file in OUT/pack, bytes

case "$LIMIT$COUNT$STATES$EPISODES$PROCESSES${SEEDS// /}" in
  *[!0-9]*)
    echo "train_anywhere: TRAIN_SECONDS, _COUNT, _STATES, _EPISODES, _PROCESSES and _SEEDS are whole numbers" >&2
    exit 2
    ;;
esac
if [ "$LIMIT" -gt 500 ]; then
  echo "train_anywhere: TRAIN_SECONDS is $LIMIT; a slice and what it packs end within 9 minutes, use at most 500" >&2
  exit 2
fi
last=1000000
for seed in $(tr ' ' '\n' <<<"$SEEDS" | sort -n); do
  if [ "$EPISODES" -lt 1 ] || [ "$seed" -le "$last" ]; then
    echo "train_anywhere: TRAIN_SEEDS are above 1000000 and TRAIN_EPISODES (at least 1) or more apart, so that no episode" \
      "counts twice; $seed is not" >&2
    exit 2
  fi
  last=$((seed + EPISODES - 1))
  # evaluate refuses the same seeds, but only after the training.
  if [ "$seed" -le 5000000 ] && [ "$last" -ge 4000001 ]; then
    echo "train_anywhere: TRAIN_SEEDS $seed with $EPISODES episodes reaches 4000001 to 5000000, seeds of the evaluation within a" \
      "training, by which its checkpoint may have been chosen; use others" >&2
    exit 2
  fi
done
for mode in $MODES; do
  case "$mode" in
    ensemble | diffusion | autoregressive) ;;
    *)
      echo "train_anywhere: TRAIN_MODES are of ensemble, diffusion and autoregressive; $mode is none" >&2
      exit 2
      ;;
  esac
done
if ! command -v flock >/dev/null; then
  echo "train_anywhere: flock is missing, by which one call at a time works in a folder; install util-linux" >&2
  exit 2
fi
mkdir -p "$OUT"
OUT="$(cd "$OUT" && pwd)"
if [ -n "$(ls -A "$OUT")" ] && [ ! -e "$OUT/$MARK" ]; then
  echo "train_anywhere: $OUT holds something that it did not make; name another folder" >&2
  exit 2
fi
[ -e "$OUT/$MARK" ] || : >"$OUT/$MARK"
SECONDS=0

# Commands that this shell runs inherit the lock, so it holds for as long as a verb works, even if this shell was killed. The worker
# processes of a verb do not hold it; they end with their verb, unless that was killed, too.
exec 9>>"$OUT/.lock"
if ! flock --nonblock 9; then
  echo "train_anywhere: another call works in $OUT (process $(tail -n 1 "$OUT/.lock")); wait until it has ended, or end it" >&2
  exit 2
fi
echo $$ >"$OUT/.lock"

# Stops the running work: timeout forwards the signal to all that its command has started, and after 10 s kills what ignores it.
leave() {
  local work
  trap '' TERM INT HUP
  work="$(jobs -p)"
  [ -z "$work" ] || { kill -TERM "$work" && wait "$work"; } 2>/dev/null || true
}
trap leave EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'exit 129' HUP

# Remove what killed calls have left half-done. Nobody else writes here now.
rm -rf "$OUT"/.data.partial-* "$OUT"/.data.parts/*.part-* "$OUT/pack.partial"
[ ! -d "$OUT/data" ] || rm -rf "$OUT/.data.parts"

left() { echo $((LIMIT - SECONDS)); }

# reached: prints a hash of the work that is kept so far; the same hash after a whole slice means that nothing was kept.
reached() {
  (
    cd "$OUT"        # so that no name above it counts
    find . -type f ! -path './*partial*' ! -path './pack/*' ! -name '*.part-*' ! -name '*.pyc' ! -name '*.log' ! -name log.jsonl \
      ! -name recipe.yaml ! -name .lock ! -name "$MARK" -printf '%P %s\n'
    find . -type f -name "done" -exec cat {} +
  ) | LC_ALL=C sort | sha256sum
}

# more WHAT: ends this slice.
more() {
  local now
  now="$(reached)"
  if [ "$BEGAN" = "$now" ]; then
    echo "train_anywhere: $1 after $SECONDS s, and nothing of this slice could be kept; raise TRAIN_SECONDS (at most 500)," \
      "or do less at once (TRAIN_COUNT, TRAIN_PROCESSES)" >&2
    exit 1
  fi
  pack
  echo "train_anywhere: $1 after $SECONDS s; the same command goes on"
  exit "$MORE"
}

# pack: packs what is worth keeping into files that can be transferred one by one.
pack() {
  local name state there=()
  for name in checkpoint evaluation train/log.jsonl train.json table.md recipe.yaml; do
    [ ! -e "$OUT/$name" ] || there+=("$name")
  done
  [ "${#there[@]}" -gt 0 ] || return 0
  rm -rf "$OUT/pack.partial"
  mkdir "$OUT/pack.partial"
  tar cz -C "$OUT" "${there[@]}" | split -b "$PART" -d - "$OUT/pack.partial/result.tar.gz."
  state="$(find "$OUT/train/state" -maxdepth 1 -name 'step-*' -printf 'train/state/%f\n' 2>/dev/null | LC_ALL=C sort | tail -n 1 || true)"
  if [ -n "${TRAIN_PACK_STATE:-}" ] && [ -n "$state" ]; then
    # Not compressed: floats do not shrink.
    tar c -C "$OUT" "$MARK" "$state" | split -b "$PART" -a 3 -d - "$OUT/pack.partial/state.tar."
  fi
  (cd "$OUT/pack.partial" && sha256sum -- *.tar.* >SHA256SUMS)
  rm -rf "$OUT/pack"
  mv "$OUT/pack.partial" "$OUT/pack"
}

# sentence LOG BYTES: prints what a verb said about its failure after so many bytes of a log, or the last line if it said nothing.
sentence() {
  local lines
  lines="$(tail -c "+$(($2 + 1))" "$1" | tr '\r' '\n')"
  { grep '^hybridvla: ' <<<"$lines" || cat <<<"$lines"; } | tail -n 1
}

# within NAME COMMAND...: runs it in the time left of the slice; ends the slice if the command did not finish.
within() {
  local name="$1" status=0 before work
  shift
  [ "$(left)" -ge "$LEAST" ] || more "no time for $name"
  before="$(stat -c %s "$OUT/$name.log" 2>/dev/null || echo 0)"
  # In the background, because a shell handles no signal before its foreground command has ended.
  timeout --signal=TERM --kill-after=10 "$(left)" "$@" >>"$OUT/$name.log" 2>&1 &
  work=$!
  echo "$$, at work: $work" >"$OUT/.lock"
  wait "$work" || status=$?
  # Stop its whole group: workers of a killed process would wait forever.
  [ "$status" -eq 0 ] || kill -TERM -- "-$work" 2>/dev/null || true
  case "$status" in
    0) ;;
    124) more "$name is not done" ;;
    137 | 143)
      [ "$(left)" -gt 1 ] || more "$name is not done"
      echo "train_anywhere: $name was ended from outside after $SECONDS s, mostly by the system for want of memory; a smaller" \
        "TRAIN_PROCESSES needs less" >&2
      exit 1
      ;;
    *)
      echo "train_anywhere: $name failed: $(sentence "$OUT/$name.log" "$before")" >&2
      exit 1
      ;;
  esac
}

BEGAN="$(reached)"
wheels="$(find "$WHEELS" -maxdepth 1 -name '*.whl' -printf '%f %s\n' 2>/dev/null | LC_ALL=C sort || true)"
if [ -n "$wheels" ] && [ "$wheels" != "$(cat "$OUT/site/wheels.txt" 2>/dev/null)" ]; then
  rm -rf "$OUT/site.partial" "$OUT/site"
  within install "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$OUT/site.partial" "$WHEELS"/*.whl
  printf '%s\n' "$wheels" >"$OUT/site.partial/wheels.txt"
  mv "$OUT/site.partial" "$OUT/site"
fi
# pinocchio and its dependencies are installed deeper (cmeel). A .pth file points to them, but Python does not read it in PYTHONPATH.
FOLDERS=
for folder in "$OUT/site" "$OUT"/site/cmeel.prefix/lib/python*/site-packages; do
  [ ! -d "$folder" ] || FOLDERS="$FOLDERS:$folder"
done
export PYTHONPATH="$PWD/src$FOLDERS${PYTHONPATH:+:$PYTHONPATH}"
DEVICE="$("$PYTHON" scripts/anywhere/packages.py "${TRAIN_DEVICE:-}")"
# A run keeps the recipe that it was started with, even if another version of this repository has a different one.
[ ! -f "$OUT/recipe.yaml" ] || TRAIN_RECIPE="${TRAIN_RECIPE:-$OUT/recipe.yaml}"
RECIPE="${TRAIN_RECIPE:-config/training/$WHAT$([ "$DEVICE" = cpu ] || echo _gpu).yaml}"
DRAWS='import os
try:
    import mujoco
    mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8)
except BaseException as error:
    print(" ".join(f"{type(error).__name__}: {error}".split()), flush=True)
    os._exit(1)'
draws=no said=
for MUJOCO_GL in ${MUJOCO_GL:-egl osmesa}; do
  export MUJOCO_GL
  ! said="$("$PYTHON" -c "$DRAWS" 2>/dev/null)" || { draws=yes && break; }
done
if [ "$draws" = no ]; then
  echo "train_anywhere: nothing draws here, not by $MUJOCO_GL either (${said:-it crashed}); install libegl1 or libosmesa6, and leave" \
    "MUJOCO_GL unset" >&2
  exit 1
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

finished() { [ -f "$OUT/train.json" ] && grep -q '"finished": true' "$OUT/train.json"; }
# Checked even if the training is finished: a table of another recipe is not what was asked for.
"$PYTHON" scripts/anywhere/recipe.py "$RECIPE" "$OUT" "$RIG" "$INIT" "$DEVICE"
if [ ! -d "$OUT/data" ]; then
  within data "$PYTHON" -m hybridvla_cli demonstrate --rig "$RIG" --tasks all --count "$COUNT" --states "$STATES" --sampled 0.9 \
    --validation 0.05 --processes "$PROCESSES" -o "$OUT/data"
fi

if ! finished; then
  [ "$(left)" -ge "$((2 * LEAST))" ] || more "no time for training"
  start=()
  [ "$INIT" = - ] || start=(--init "$INIT")
  threads=4
  [ "$DEVICE" != cpu ] || threads="$(nproc)"
  # The time left over is for saving the state and the checkpoint.
  within train "$PYTHON" -m hybridvla_cli train --config "$OUT/recipe.yaml" "${start[@]}" --data "$OUT/data" --work "$OUT/train" \
    --out "$OUT/checkpoint" --device "$DEVICE" --threads "$threads" \
    --seconds "$(($(left) - LEAST))" --json "$OUT/train.json"
  finished || more "training is not done"
fi

# One file for every few episodes of a task, mode and seed, so that the end of a slice loses at most one of them. Each checkpoint has
# its own files, and so does each version of the code that decides an episode, of MuJoCo and of the renderer.
came="$("$PYTHON" -c "from hybridvla_core.files import key_of; from hybridvla_sim.origin import origin; print(key_of(origin()))")"
results="$OUT/evaluation/$(sha256sum "$OUT/checkpoint/MANIFEST.json" | cut -c1-12)-${came:0:12}"
mkdir -p "$results"
wanted=()
for task in $("$PYTHON" -c "from hybridvla_sim import tasks; from hybridvla_sim.rigs import RIGS
print(*tasks.chosen(['all'], RIGS['$RIG'].kind))"); do
  for mode in $MODES; do
    for seed in $SEEDS; do
      for ((offset = 0; offset < EPISODES; offset += BLOCK)); do
        first=$((seed + offset)) count=$((EPISODES - offset < BLOCK ? EPISODES - offset : BLOCK))
        file="$results/$task-$mode-$first-$count.json"
        wanted+=("$file")
        [ -f "$file" ] || within evaluate "$PYTHON" -m hybridvla_cli evaluate --rig "$RIG" --checkpoint "$OUT/checkpoint" \
          --task "$task" --mode "$mode" --episodes "$count" --seed "$first" --processes "$PROCESSES" --json "$file"
      done
    done
  done
done
"$PYTHON" -m hybridvla_core.evaluation.pooling "${wanted[@]}" >"$OUT/table.md.partial"
mv "$OUT/table.md.partial" "$OUT/table.md"
cat "$OUT/table.md"
pack
echo "train_anywhere: done; what is worth keeping is in $OUT/pack"
