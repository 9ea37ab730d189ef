# shellcheck shell=bash
# The catkin devel space: messages, services, reconfigure parameters, and nodes that use .venv's interpreter.

build_workspace() {
  local wanted inputs=() path
  for path in CMakeLists.txt package.xml setup.py msg srv cfg nodes; do
    [ ! -e "$ROOT/$path" ] || inputs+=("$ROOT/$path")
  done
  wanted="$(hash_of "${inputs[@]}")"
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
    cmake -S "$ROOT" -B "$ROOT/build" "-DPYTHON_EXECUTABLE=$VENV/bin/python3" \
      "-DCATKIN_DEVEL_PREFIX=$ROOT/devel" -DSETUPTOOLS_DEB_LAYOUT=OFF &&
      cmake --build "$ROOT/build" -j2
  ) >"$ROOT/build/setup.log" 2>&1 9<&-; then
    tail -n 30 "$ROOT/build/setup.log" >&2
    fail "the catkin build failed; its whole output is in build/setup.log"
  fi
  printf '%s\n' "$wanted" >"$ROOT/build/.stamp"
}
