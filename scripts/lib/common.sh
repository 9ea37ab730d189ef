# shellcheck shell=bash
# Speech and hashes for the set-up.

say() { printf 'setup: %s\n' "$*"; }

fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# Names in a list file, without comments and blank lines.
names_in() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$1"; }

# One hash over the contents and the names of files and folders.
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
