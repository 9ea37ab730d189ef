#!/usr/bin/env bash
# make test: pytest for what needs no ROS master, then what is marked `ros`, each with its own master on a free loopback port; of
# both what is not marked `long`. make test-long: the same with what is (--long; PART=graphs: of that what needs a master). Called by
# scripts/with_env.sh. Other arguments go to pytest in place of the test folders.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export ROS_IP=127.0.0.1
# One thread a process: on two cores the tests' own processes share them better than BLAS does.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
STATUS=0

LENGTH="not long"
if [ "${1:-}" = "--long" ]; then
  LENGTH="long"
elif [ "$#" -gt 0 ]; then
  exec python -m pytest "$@"
fi
readonly NOTHING=5      # pytest's status where no test was chosen, as in a file of the rigs without long ones
# HYBRIDVLA_COVERAGE=1 adds to .coverage which lines of src the tests' own processes run; nodes are processes of their own and not
# counted.
COVER=()
if [ -n "${HYBRIDVLA_COVERAGE:-}" ]; then
  COVER=(--cov=src --cov-append --cov-report=)
fi
if [ "${PART:-all}" != graphs ]; then
  python -m pytest test -m "not ros and $LENGTH" -n auto --dist worksteal --durations=5 "${COVER[@]}" || STATUS=1
fi

# HYBRIDVLA_SECOND_TRY=1, for a shared machine whose cores come and go: what fails in a graph of real time runs once more, by
# itself and on a new master. Both results are printed; what fails twice fails.
graph() {
  local status=0
  python -m pytest "$@" -m "ros and $LENGTH" --durations=5 "${COVER[@]}" || status="$?"
  [ "$status" = 0 ] || [ "$status" = "$NOTHING" ] && return
  [ -n "${HYBRIDVLA_SECOND_TRY:-}" ] || { STATUS=1; return; }
  printf '\n== second try of what failed above: %s\n' "$*"
  python -m pytest "$@" -m "ros and $LENGTH" --last-failed --last-failed-no-failures none "${COVER[@]}" || STATUS=1
}
for folder in test/ros test/faults; do      # a process each: rospy knows one master a process
  graph "$folder"
done
# Each file of the rigs has masters and launch files of its own.
for file in test/rigs/test_*.py; do
  graph "$file"
done
exit "$STATUS"
