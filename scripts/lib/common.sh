# shellcheck shell=bash
# Messages, hashes and interpreters for the scripts.

say() { printf 'setup: %s\n' "$*"; }

fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# Prints the names in a list file, without comments and blank lines.
names_in() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$1"; }

# Prints one hash over the contents and the names of files and folders.
hash_of() {
  local path
  for path in "$@"; do
    if [ -d "$path" ]; then
      find "$path" -type f -not -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 --no-run-if-empty sha256sum
    else
      sha256sum "$path"
    fi
  done | sha256sum | cut -d' ' -f1
}

# Prints the first Python found of a version (python_of 3.8), or nothing; PYTHON38 and PYTHON312 can name one.
python_of() {
  local version="$1" named="PYTHON${1/./}" candidate
  for candidate in "${!named:-}" "/usr/bin/python$version" "/usr/local/bin/python$version" \
    "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/"python$version"; do
    if [ -n "$candidate" ] &&
      "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
}
