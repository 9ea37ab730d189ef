#!/usr/bin/env bash
# make test runs pytest on the tests that need no ROS master, then on those marked `ros`, each with its own master on a free loopback
# port; both without the tests marked `long`. make test-long runs those marked `long` (--long; PART=graphs: only those that need a
# master, without whole evaluations). Called by scripts/with_env.sh. Other arguments go to pytest instead of the test folders.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export ROS_IP=127.0.0.1
# One thread per process: the tests' own processes share two cores better than BLAS does.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
STATUS=0

LENGTH="not long"
if [ "${1:-}" = "--long" ]; then
  LENGTH="long"
elif [ "$#" -gt 0 ]; then
  exec python -m pytest "$@"
fi
readonly FAILED=1 NOTHING=5      # pytest's status if a test failed, and if none was selected
# HYBRIDVLA_COVERAGE=1 adds to .coverage the lines of src that the tests' own processes run. Nodes are separate processes and are
# not counted.
COVER=()
if [ -n "${HYBRIDVLA_COVERAGE:-}" ]; then
  COVER=(--cov=src --cov-append --cov-report=)
fi
if [ "${PART:-all}" != graphs ]; then
  python -m pytest test -m "not ros and $LENGTH" -n auto --dist worksteal --durations=5 "${COVER[@]}" || STATUS=1
fi

# HYBRIDVLA_SECOND_TRY=1 is for a shared machine whose cores come and go: a test that fails in a real-time graph runs once more, by
# itself and on a new master. Both results are printed; a test that fails twice fails. A pytest that dies has no second try: what
# failed before it died is not known.
graph() {
  local status=0
  python -m pytest "$@" -m "ros and $LENGTH" --durations=5 "${COVER[@]}" || status="$?"
  if [ "$status" = "$FAILED" ] && [ -n "${HYBRIDVLA_SECOND_TRY:-}" ]; then
    printf '\n== second try of what failed above: %s\n' "$*"
    python -m pytest "$@" -m "ros and $LENGTH" --last-failed --last-failed-no-failures none "${COVER[@]}" || return "$FAILED"
    return 0
  fi
  return "$status"
}

WHOLE=()
if [ "${PART:-all}" = graphs ]; then
  WHOLE=(--ignore=test/ros/evaluation)
fi
for folder in test/ros test/faults; do      # a process each: rospy supports one master per process
  graph "$folder" "${WHOLE[@]}" || STATUS="$?"
done
# Each file of the rigs has its own masters and launch files. Some have no long test, others nothing but long ones.
for file in test/rigs/test_*.py; do
  graph "$file" || { status="$?"; [ "$status" = "$NOTHING" ] || STATUS="$status"; }
done
exit "$STATUS"
