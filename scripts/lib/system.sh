# shellcheck shell=bash
# Finds which ROS this machine has or can have, and which packages are missing for it.
# shellcheck disable=SC2034  # the other files of the set-up read what is set here

# Sets PLATFORM (noetic or debian12) and SYSTEM (its name for people). Fails on any other system.
find_ros() {
  local id version
  # shellcheck disable=SC1090  # a data file of the system
  id="$(. "${OS_RELEASE:-/etc/os-release}" && echo "${ID:-unknown}")"
  # shellcheck disable=SC1090
  version="$(. "${OS_RELEASE:-/etc/os-release}" && echo "${VERSION_ID:-}")"
  NOETIC="${NOETIC_PREFIX:-/opt/ros/noetic}"
  if [ -f "$NOETIC/setup.bash" ]; then
    PLATFORM=noetic
    SYSTEM="ROS Noetic in $NOETIC"
    PACKAGE_LIST="$ROOT/requirements/noetic/apt.txt"
  elif [ "${ROS_DISTRO:-}" = noetic ]; then
    fail "ROS_DISTRO is noetic but $NOETIC/setup.bash is missing; set NOETIC_PREFIX to where Noetic is installed"
  elif [ "$id" = debian ] && [ "$version" = 12 ]; then
    PLATFORM=debian12
    SYSTEM="Debian 12 with its own ROS 1 packages"
    PACKAGE_LIST="$ROOT/requirements/debian12/apt.txt"
  elif [ "$id" = ubuntu ] && [ "$version" = 20.04 ]; then
    fail "this is Ubuntu 20.04 without ROS; install ros-noetic-ros-base as the ROS wiki says, then run this again"
  else
    fail "this is $id $version, which has no ROS 1 packages that were tried; needed are Debian 12 with the packages in" \
      "requirements/debian12/apt.txt, or ROS Noetic with those in requirements/noetic/apt.txt (docs/install.md)"
  fi
  if [ "$WITH_ROS" -eq 0 ]; then
    [ "$PLATFORM" = debian12 ] || fail "--without-ros is for Debian 12, and this has $SYSTEM; leave the option out"
    SYSTEM="Debian 12 without ROS"
    PACKAGE_LIST="$ROOT/requirements/debian12/apt-model.txt"
  fi
}

# Sets MISSING_PACKAGES, an array.
find_missing_packages() {
  local installed
  command -v dpkg-query >/dev/null || fail "dpkg-query is missing, so installed packages cannot be told; install dpkg"
  installed="$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p' | LC_ALL=C sort -u)"
  mapfile -t MISSING_PACKAGES < <(LC_ALL=C comm -13 <(printf '%s\n' "$installed") \
    <(names_in "$PACKAGE_LIST" | LC_ALL=C sort -u))
}

# Prints what this run will install, before it does.
announce() {
  say "$SYSTEM, clone in $ROOT"
  if [ "${#MISSING_PACKAGES[@]}" -gt 0 ]; then
    say "will install ${#MISSING_PACKAGES[@]} system packages and what they need: ${MISSING_PACKAGES[*]}"
  fi
  if [ "$VENV_STATE" != good ]; then
    say "will make .venv with $PYTHON ($VENV_STATE)"
  fi
  if [ "${#OUTDATED_LOCKS[@]}" -gt 0 ]; then
    say "will install into .venv the pinned packages of: ${OUTDATED_LOCKS[*]}"
  fi
}

# Stops here, with nothing changed, if the system packages cannot be installed.
refuse_if_impossible() {
  [ "${#MISSING_PACKAGES[@]}" -gt 0 ] || return 0
  AS_ROOT=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      AS_ROOT=(sudo -n)
    else
      fail "installing system packages needs root and this user is not; nothing was changed. As root, run:" \
        "apt-get install ${MISSING_PACKAGES[*]}"
    fi
  fi
  command -v apt-get >/dev/null ||
    fail "apt-get is missing; nothing was changed. Install by hand: ${MISSING_PACKAGES[*]}"
}

install_packages() {
  [ "${#MISSING_PACKAGES[@]}" -gt 0 ] || return 0
  export DEBIAN_FRONTEND=noninteractive
  say "apt-get update"
  "${AS_ROOT[@]}" apt-get update -qq ||
    fail "apt-get update failed; check the network and the package sources, then run this again"
  say "apt-get install, ${#MISSING_PACKAGES[@]} packages"
  "${AS_ROOT[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${MISSING_PACKAGES[@]}" </dev/null >/dev/null ||
    fail "apt-get install failed (above); correct it and run this again, what was installed is kept"
}
