# shellcheck shell=bash
# .venv: made from the system's Python, because ROS's modules belong to that, and filled from the locks.

readonly PIP_VERSION=25.0.1

# Sets PYTHON and VENV_STATE (good, or why .venv must be made).
find_python() {
  PYTHON=/usr/bin/python3
  if [ ! -x "$PYTHON" ]; then
    # It comes with the system packages, which are installed before .venv is made.
    VENV_STATE="there is none yet"
    PYTHON_VERSION=unknown
    return
  fi
  PYTHON_VERSION="$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  if [ ! -e "$VENV" ]; then
    VENV_STATE="there is none yet"
  elif ! "$VENV/bin/python" -c "
import os, sys
assert os.path.samefile(sys.prefix, sys.argv[1]) and '%d.%d' % sys.version_info[:2] == sys.argv[2]" \
    "$VENV" "$PYTHON_VERSION" 2>/dev/null; then
    VENV_STATE="the one there is broken, or was moved here"
  elif grep -qs '^include-system-site-packages = true$' "$VENV/pyvenv.cfg"; then
    VENV_STATE=good
  elif [ "$WITH_ROS" -eq 1 ]; then
    # ROS's modules are among the system's.
    VENV_STATE="the one there was made without the system's packages"
  elif ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    # python3 -m venv installs pip, and only then writes that it includes the system's packages.
    VENV_STATE="the one there is unfinished: it has no pip"
  else
    VENV_STATE=good
  fi
}

# Refuses another Python: the locks fit one Python on each system.
refuse_other_python() {
  case "$PLATFORM $PYTHON_VERSION" in
    "debian12 3.11" | "noetic 3.8" | *" unknown") ;;
    *) fail "$PYTHON is Python $PYTHON_VERSION, and the locks are for 3.11 on Debian 12 and 3.8 on Noetic; nothing was" \
      "changed. Restore the system's own Python" ;;
  esac
}

# Sets PINNED_LOCKS (installed with --no-deps), TORCH_LOCK, and OUTDATED_LOCKS, those whose stamp does not match.
find_outdated_locks() {
  local lock
  if [ "$PLATFORM" = noetic ]; then
    PINNED_LOCKS=(noetic/core noetic/sim noetic/test)
    TORCH_LOCK=""
    if [ "$WITH_POLICY" -eq 1 ]; then
      PINNED_LOCKS+=(noetic/policy noetic/vision)
      TORCH_LOCK=noetic/torch
    fi
  elif [ "$WITH_ROS" -eq 0 ]; then
    PINNED_LOCKS=(debian12/{base,vision})
    TORCH_LOCK=debian12/torch
  elif [ "$WITH_POLICY" -eq 0 ]; then
    PINNED_LOCKS=(debian12/{base,sim})
    TORCH_LOCK=""
  else
    PINNED_LOCKS=(debian12/{base,vision,sim,train,test,browser,lint})
    TORCH_LOCK=debian12/torch
  fi
  OUTDATED_LOCKS=()
  for lock in "${PINNED_LOCKS[@]}" ${TORCH_LOCK:+"$TORCH_LOCK"}; do
    [ -f "$ROOT/requirements/$lock.txt" ] || fail "requirements/$lock.txt is missing; restore it from the repository"
    if [ "$VENV_STATE" != good ] || [ "$(stamp_of "$lock")" != "$(hash_of "$ROOT/requirements/$lock.txt")" ]; then
      OUTDATED_LOCKS+=("$lock")
    fi
  done
}

stamp_of() { cat "$VENV/.stamps/$1" 2>/dev/null || true; }

stamp() {
  mkdir -p "$VENV/.stamps/${1%/*}"
  hash_of "$ROOT/requirements/$1.txt" >"$VENV/.stamps/$1"
}

in_venv_pip() {
  "$VENV/bin/python" -m pip --disable-pip-version-check --no-input -qq "$@" 9<&-
}

make_venv() {
  [ "$VENV_STATE" != good ] || return 0
  say "making .venv"
  rm -rf "$VENV"
  "$PYTHON" -m venv --system-site-packages "$VENV" || fail "python3 -m venv failed; install python3-venv and run this again"
}

install_locks() {
  [ "${#OUTDATED_LOCKS[@]}" -gt 0 ] || return 0
  local lock arguments=()
  # Older versions of pip do not find manylinux_2_28 wheels and resolve differently.
  if ! "$VENV/bin/python" -m pip --version | grep -q "^pip $PIP_VERSION "; then
    in_venv_pip install "pip==$PIP_VERSION" || pip_failed "pip $PIP_VERSION"
  fi
  for lock in "${OUTDATED_LOCKS[@]}"; do
    [ "$lock" = "$TORCH_LOCK" ] || arguments+=(-r "$ROOT/requirements/$lock.txt")
  done
  if [ "${#arguments[@]}" -gt 0 ]; then
    say "pip install, locks without torch"
    in_venv_pip install --no-deps "${arguments[@]}" || pip_failed "the locks"
  fi
  for lock in "${OUTDATED_LOCKS[@]}"; do
    if [ "$lock" = "$TORCH_LOCK" ]; then
      say "pip install, $(names_in "$ROOT/requirements/$lock.txt")"
      in_venv_pip install -r "$ROOT/requirements/$lock.txt" || pip_failed "torch"
    fi
    stamp "$lock"
  done
}

pip_failed() {
  fail "pip could not install $1 (above); check the network and the free disk space, then run this again"
}

# Makes the packages come from this clone's src, and `hybridvla` from its command line module.
install_entry_points() {
  local site
  site="$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"
  printf '%s\n' "$ROOT/src" >"$site/hybridvla.pth"
  # The guard is for worker processes, which import this file.
  printf '#!%s\nfrom hybridvla_cli.__main__ import entry\n\nif __name__ == "__main__":\n    entry()\n' \
    "$VENV/bin/python" >"$VENV/bin/hybridvla"
  chmod +x "$VENV/bin/hybridvla"
}
