# shellcheck shell=bash
# The catkin devel space: messages, services, reconfigure parameters, and nodes that use .venv's interpreter.

# Stops here if DRIVER_WORKSPACE names no workspace; makes its path absolute.
find_driver_workspace() {
  [ -n "${DRIVER_WORKSPACE:-}" ] || return 0
  [ -f "$DRIVER_WORKSPACE/setup.bash" ] ||
    fail "DRIVER_WORKSPACE is $DRIVER_WORKSPACE, which has no setup.bash; name the devel or install folder of the drivers'" \
      "workspace, or unset it"
  DRIVER_WORKSPACE="$(cd "$DRIVER_WORKSPACE" && pwd -P)"
}

# Sources what this clone builds on. Each setup.bash starts its own chain; that of the drivers includes the Noetic they were built on.
source_underlay() {
  set +u
  if [ "$PLATFORM" = noetic ]; then
    # shellcheck disable=SC1091  # part of ROS
    source "$NOETIC/setup.bash"
  fi
  if [ -n "${DRIVER_WORKSPACE:-}" ]; then
    # shellcheck disable=SC1091  # the lab's
    source "$DRIVER_WORKSPACE/setup.bash"
  fi
}

# Prints the message packages of robot drivers that this machine lacks; each stand-in under test/ has the same MD5 sums.
standins() (
  source_underlay
  for path in "$ROOT"/test/standin_msgs/*/package.xml; do
    [ -e "$path" ] || continue
    name="$(basename "$(dirname "$path")")"
    found="$(rospack find "$name" 2>/dev/null || true)"
    # A devel space that was sourced through a link refers to this clone by that link.
    [ -z "$found" ] || found="$(realpath -m -- "$found")"
    case "$found" in
      "" | "$ROOT"/*) echo "$name" ;;
    esac
  done
)

# Python modules go to lib/python3/dist-packages, as in Noetic and in every catkin workspace on Ubuntu and Debian. The generated
# setup.bash looks for modules in that one folder of each workspace below, so another would hide ROS's modules and the drivers'.
readonly LAYOUT=-DSETUPTOOLS_DEB_LAYOUT=ON

configure_and_build() {
  cmake -S "$1" -B "$2" "-DPYTHON_EXECUTABLE=$VENV/bin/python3" "-DCATKIN_DEVEL_PREFIX=$ROOT/devel" "$LAYOUT" &&
    cmake --build "$2" -j2
}

build_workspace() {
  local wanted built inputs=() path
  for path in CMakeLists.txt cmake package.xml setup.py msg srv cfg nodes test/standin_msgs; do
    [ ! -e "$ROOT/$path" ] || inputs+=("$ROOT/$path")
  done
  wanted="$(hash_of "${inputs[@]}") $PLATFORM $LAYOUT $(standins | tr '\n' ' ')${DRIVER_WORKSPACE:-}"
  built="$(cat "$ROOT/build/.stamp" 2>/dev/null || true)"
  if [ -f "$ROOT/devel/setup.bash" ] && [ "$built" = "$wanted" ]; then
    return 0
  fi
  say "building the devel space"
  # A stand-in that is no longer needed would hide the driver's messages. Without a stamp, the last build failed or was
  # interrupted, and nobody knows what it left.
  if [ "${built#* }" != "${wanted#* }" ]; then
    rm -rf "$ROOT/build" "$ROOT/devel"
  fi
  if [ -f "$ROOT/build/CMakeCache.txt" ] &&
    ! grep -q "^CMAKE_HOME_DIRECTORY:INTERNAL=$ROOT$" "$ROOT/build/CMakeCache.txt"; then
    rm -rf "$ROOT/build" "$ROOT/devel"
  fi
  mkdir -p "$ROOT/build"
  rm -f "$ROOT/build/.stamp"
  if ! (
    source_underlay
    export PATH="$VENV/bin:$PATH"
    configure_and_build "$ROOT" "$ROOT/build" &&
      for path in $(standins); do
        ROS_LANG_DISABLE=gencpp:geneus:genlisp:gennodejs \
          configure_and_build "$ROOT/test/standin_msgs/$path" "$ROOT/build/$path" || exit 1
      done
  ) >"$ROOT/build/setup.log" 2>&1 9<&-; then
    tail -n 30 "$ROOT/build/setup.log" >&2
    fail "the catkin build failed; its whole output is in build/setup.log"
  fi
  printf '%s\n' "$wanted" >"$ROOT/build/.stamp"
}
