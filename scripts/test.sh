#!/usr/bin/env bash
# make test: pytest for what needs no ROS, then the ROS tests, each with its own master on a free loopback port.
# Called by scripts/with_env.sh. Arguments go to pytest in place of the test folders.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export ROS_IP=127.0.0.1
# One thread a process: on two cores the tests' own processes share them better than BLAS does.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
STATUS=0

if [ "$#" -gt 0 ]; then
  exec python -m pytest "$@"
fi
python -m pytest test --ignore=test/ros --ignore=test/rigs --ignore=test/faults -n auto --dist worksteal --durations=5 || STATUS=1
for folder in test/ros test/faults; do      # a process each: rospy knows one master a process
  if [ -d "$folder" ]; then
    python -m pytest "$folder" --durations=5 || STATUS=1
  fi
done
# Each file of the rigs has masters and launch files of its own, and rospy knows one master a process.
for file in test/rigs/test_*.py; do
  [ ! -e "$file" ] || python -m pytest "$file" --durations=5 || STATUS=1
done
exit "$STATUS"
