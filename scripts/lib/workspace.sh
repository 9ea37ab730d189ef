# shellcheck shell=bash
# The catkin devel space: messages, services, reconfigure parameters, and nodes that use .venv's interpreter.

# Message packages of robot drivers that this machine lacks; a stand-in under test/ has the same MD5 sums.
standins() {
  local path name found
  for path in "$ROOT"/test/standin_msgs/*/package.xml; do
    [ -e "$path" ] || continue
    name="$(basename "$(dirname "$path")")"
    found="$(rospack find "$name" 2>/dev/null || true)"
    case "$found" in
      "" | "$ROOT"/*) echo "$name" ;;
    esac
  done
}

configure_and_build() {
  cmake -S "$1" -B "$2" "-DPYTHON_EXECUTABLE=$VENV/bin/python3" "-DCATKIN_DEVEL_PREFIX=$ROOT/devel" \
    -DSETUPTOOLS_DEB_LAYOUT=OFF && cmake --build "$2" -j2
}

build_workspace() {
  local wanted inputs=() path
  for path in CMakeLists.txt package.xml setup.py msg srv cfg nodes test/standin_msgs; do
    [ ! -e "$ROOT/$path" ] || inputs+=("$ROOT/$path")
  done
  wanted="$(hash_of "${inputs[@]}") $(standins | tr '\n' ' ')"
  if [ -f "$ROOT/devel/setup.bash" ] && [ "$(cat "$ROOT/build/.stamp" 2>/dev/null)" = "$wanted" ]; then
    return 0
  fi
  say "building the devel space"
  if [ -f "$ROOT/build/CMakeCache.txt" ] &&
    ! grep -q "^CMAKE_HOME_DIRECTORY:INTERNAL=$ROOT$" "$ROOT/build/CMakeCache.txt"; then
    rm -rf "$ROOT/build" "$ROOT/devel"
  fi
  mkdir -p "$ROOT/build"
  if ! (
    if [ "$PLATFORM" = noetic ]; then
      set +u
      # shellcheck disable=SC1091  # part of ROS
      source "$NOETIC/setup.bash"
    fi
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
