#!/usr/bin/env bash
# Makes this clone ready to run: system packages, .venv with the pinned packages, and the catkin devel space.
# Every step is skipped when nothing it depends on has changed. Nothing is installed before every check has passed.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly ROOT
readonly VENV="$ROOT/.venv"
WITH_POLICY=1

# shellcheck source=scripts/lib/common.sh
source "$ROOT/scripts/lib/common.sh"
# shellcheck source=scripts/lib/system.sh
source "$ROOT/scripts/lib/system.sh"
# shellcheck source=scripts/lib/python.sh
source "$ROOT/scripts/lib/python.sh"
# shellcheck source=scripts/lib/workspace.sh
source "$ROOT/scripts/lib/workspace.sh"

usage() {
  cat <<'TEXT'
usage: scripts/setup.sh [--without-policy]

  --without-policy  Noetic only: the robot computer. Installs what the safety filter and the robot adapters need
                    and leaves out the model (no torch).

DRIVER_WORKSPACE names the devel or install folder of the workspace in which franka_ros or Piper_ros were built from
source; this clone is then built upon it. Keep it set: without it the next set-up builds without the drivers.
TEXT
}

for argument in "$@"; do
  case "$argument" in
    --without-policy) WITH_POLICY=0 ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) fail "unknown option $argument; scripts/setup.sh --help lists the options" ;;
  esac
done

# Two runs at once (make test beside make demo) would write the same .venv.
exec 9<"$ROOT/scripts/setup.sh"
if command -v flock >/dev/null && ! flock --nonblock 9; then
  say "waiting for another set-up of this clone"
  flock 9
fi

find_driver_workspace
find_ros
find_missing_packages
find_python
find_outdated_locks
announce
refuse_if_impossible
refuse_other_python

install_packages
make_venv
install_locks
install_entry_points
build_workspace
say "ready: .venv and devel are up to date"
