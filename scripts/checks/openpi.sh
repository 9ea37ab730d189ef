#!/usr/bin/env bash
# Runs the unmodified openpi-client and openpi-server in their own environment, because they need another numpy than ours.
# usage: scripts/checks/openpi.sh                    only makes the environment
#        scripts/checks/openpi.sh ask PORT KEY       asks a policy server through openpi-client
#        scripts/checks/openpi.sh serve              answers through openpi-server; prints its port
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly ROOT
readonly VENV="$ROOT/build/openpi"
# openpi-client imports typing_extensions, but does not list it as a requirement.
readonly WANTED="openpi-client==0.1.2 openpi-server==0.1.0 typing_extensions"

if [[ "$(cat "$VENV/.made" 2>/dev/null)" != "$WANTED" ]]; then
  rm -rf "$VENV"
  "$ROOT/.venv/bin/python" -m venv "$VENV"
  # shellcheck disable=SC2086  # a list
  "$VENV/bin/python" -m pip --disable-pip-version-check --no-input -q install $WANTED
  printf '%s\n' "$WANTED" >"$VENV/.made"
fi
case "${1:-}" in
  ask) exec "$VENV/bin/python" "$ROOT/test/support/openpi_client_asks.py" "${@:2}" ;;
  serve) exec "$VENV/bin/python" "$ROOT/test/support/openpi_server_answers.py" ;;
esac
