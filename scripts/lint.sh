#!/usr/bin/env bash
# Runs all static checks over tracked files and new files that git does not ignore. It runs every check, then fails if any failed.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
FAILED=()

# files PATTERN...: prints tracked and new files, one per line.
files() { git ls-files --cached --others --exclude-standard --deduplicate -- "$@" | while read -r f; do [ ! -f "$f" ] || echo "$f"; done; }

check() {
  local name="$1" output
  shift
  if output="$("$@" 2>&1)"; then
    printf 'ok      %s\n' "$name"
  else
    printf 'FAILED  %s\n%s\n' "$name" "$output"
    FAILED+=("$name")
  fi
}

mapfile -t PYTHON < <(files '*.py')
mapfile -t SHELL_FILES < <(
  files '*.sh' '*.bash'
  files .ci/run
)
mapfile -t YAML < <(files '*.yaml' '*.yml' .yamllint)
mapfile -t DOCKER < <(files 'docker/*Dockerfile*')
mapfile -t TEXT < <(files '*.py' '*.md' '*.sh' '*.yaml' '*.msg' '*.srv' '*.launch' Makefile 'requirements/**/*.txt')

check ruff ruff check --quiet --output-format=concise .
check "python 3.8 syntax and library" vermin --quiet --target=3.8- --no-tips --violations --backport dataclasses \
  --backport typing --eval-annotations "${PYTHON[@]}"
check rooms python scripts/checks/rooms.py
check layers env PYTHONPATH=src lint-imports --no-logo pyproject.toml
check "types of hybridvla_core and hybridvla_cli" mypy
check "Any in signatures" python scripts/checks/untyped.py
check "names and links in documents" python scripts/checks/docs.py
check "keys and passwords" python scripts/checks/leaks.py
check shellcheck shellcheck --external-sources "${SHELL_FILES[@]}"
check yamllint yamllint --strict "${YAML[@]}"
check codespell codespell "${TEXT[@]}"
if [ "${#DOCKER[@]}" -gt 0 ]; then
  check hadolint hadolint "${DOCKER[@]}"
fi
if [ -f package.xml ]; then
  check catkin_lint catkin_lint --offline --quiet -W2 --strict --ignore uninstalled_script \
    --ignore unsorted_list --ignore package_path_name --ignore literal_project_name .
fi

if [ "${#FAILED[@]}" -gt 0 ]; then
  printf 'lint: failed: %s\n' "${FAILED[*]}" >&2
  exit 1
fi
echo "lint: all checks passed"
