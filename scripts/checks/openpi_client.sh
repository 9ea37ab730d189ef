#!/usr/bin/env bash
# Makes an environment of its own with the unmodified openpi-client, whose packages want another numpy than ours, and asks a
# policy server through it once. usage: scripts/checks/openpi_client.sh PORT KEY   (without a port, only makes the environment)
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly ROOT
readonly VENV="$ROOT/build/openpi-client"

if [[ ! -f "$VENV/.made" ]]; then
  "$ROOT/.venv/bin/python" -m venv "$VENV"
  # typing_extensions is imported by openpi-client and not among what it asks for.
  "$VENV/bin/python" -m pip --disable-pip-version-check --no-input -q install openpi-client==0.1.2 typing_extensions
  touch "$VENV/.made"
fi
if [[ $# -gt 0 ]]; then
  "$VENV/bin/python" "$ROOT/test/support/openpi_client_asks.py" "$@"
fi
