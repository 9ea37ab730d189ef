#!/usr/bin/env bash
# Makes this clone ready to run: system packages, .venv with the pinned packages, and the catkin devel space.
# It skips every step whose inputs have not changed, and installs nothing before every check has passed.
set -euo pipefail

# The physical path of this clone, whatever link it was reached through.
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
readonly ROOT
readonly VENV="$ROOT/.venv"
WITH_POLICY=1
WITH_ROS=1
UNTIL=""

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
usage: scripts/setup.sh [--without-policy | --without-ros] [--until packages|python]

  --without-policy  the robot computer, or a rig whose model runs elsewhere: installs what the safety filter and the
                    robot adapters need and leaves out the model (no torch).
  --without-ros     Debian 12 only: a computer that runs `hybridvla serve` and no node. Python packages alone.
  --until STEP      stops after the system packages, or after .venv; images of containers are built step by step.

DRIVER_WORKSPACE names the devel or install folder of the workspace in which franka_ros or Piper_ros were built from
source; this clone is then built upon it. Keep it set: without it the next set-up builds without the drivers.
TEXT
}

while [ "$#" -gt 0 ]; do
  case "$1" in
    --without-policy) WITH_POLICY=0 ;;
    --without-ros) WITH_ROS=0 ;;
    --until)
      UNTIL="${2:-}"
      [[ "$UNTIL" =~ ^(packages|python)$ ]] || fail "--until wants packages or python, not '$UNTIL'"
      shift
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) fail "unknown option $1; scripts/setup.sh --help lists the options" ;;
  esac
  shift
done
if [ $((WITH_POLICY + WITH_ROS)) -eq 0 ]; then
  fail "--without-policy and --without-ros together leave nothing to install; give one"
fi

# Neither the first line of a script nor catkin's generated scripts can name an interpreter whose path contains white space.
if [[ "$ROOT" =~ [[:space:]] ]]; then
  fail "the path of this clone, '$ROOT', contains white space, so its programs could not start; nothing was changed. Move the" \
    "clone to a path without it, and run this again there"
fi

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
if [ "$UNTIL" = packages ]; then
  say "system packages are up to date; stopping there, as asked"
  exit 0
fi
make_venv
install_locks
install_entry_points
if [ "$UNTIL" = python ] || [ "$WITH_ROS" -eq 0 ]; then
  say "ready: .venv is up to date"
  exit 0
fi
build_workspace
say "ready: .venv and devel are up to date"
