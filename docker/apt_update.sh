#!/usr/bin/env bash
# Runs apt-get update on an image of ROS Noetic, with the known remedy if the image is older than the key of its package source.
#
# Two keys sign Noetic's packages. Images made before June 2025 use packages.ros.org, whose key expired on 2025-06-01 and was
# extended. Later images use the final snapshot, whose key has expired before, too. An extended key is the same key: as it is
# fetched by its full fingerprint, nobody can substitute another.
set -euo pipefail

readonly KEYSERVER="${KEYSERVER:-hkps://keyserver.ubuntu.com}"
readonly SOURCES="${SOURCES:-/etc/apt/sources.list.d}"
readonly TRUSTED="${TRUSTED:-/etc/apt/trusted.gpg.d/ros.gpg}"
readonly KNOWN=(C1CF6E31E6BADE8868B172B4F42ED6FBAB17C654 4B63CF8FDE49746E98FA01DDAD19BAB3CBF125EA)

refuse() {
  printf 'apt_update: %s\n' "$*" >&2
  exit 1
}

# Prints the fingerprints of the known keys that an output of apt-get reports as expired or missing.
wanted_of() {
  local fingerprint
  for fingerprint in "${KNOWN[@]}"; do
    if grep -Eq "(EXPKEYSIG|NO_PUBKEY|KEYEXPIRED)[^A-F0-9]*${fingerprint:24}" <<<"$1"; then
      printf '%s\n' "$fingerprint"
    fi
  done
}

# Prints the addresses of the package sources that an output of apt-get reports for one of the wanted keys.
sources_of() {
  grep -F -f <(printf '%s\n' "${WANTED[@]#????????????????????????}") <<<"$1" | grep -oE '[a-z+]+://[^ ]+' | sort -u || true
}

# Prints the keyrings that an address's entries name, lines of a .list or paragraphs of a .sources file: no other source's.
rings_of() {
  {
    find "$SOURCES" -name '*.list' -exec grep -hF -- "$1" {} + || true
    find "$SOURCES" -name '*.sources' -exec awk -v RS= -v address="$1" 'index($0, address)' {} + || true
  } | grep -v '^ *#' | grep -oE '[Ss]igned-[Bb]y[=:] */[^] ]+' | sed -E 's/^[^=:]+[=:] *//' | tr ',' '\n' || true
}

# Adds the fetched keys to a keyring. gpg merges them with what is in it: appended, an extended key would stand behind the
# expired one.
merge_into() {
  local ring="$1" home armour=()
  home="$(mktemp -d -p "$HOME_OF_KEYS")"
  [[ "$ring" != *.asc ]] || armour=(--armor)
  [ ! -s "$ring" ] || gpg --batch --quiet --homedir "$home" --import "$ring" || refuse "the keyring $ring cannot be read"
  gpg --batch --homedir "$HOME_OF_KEYS" --export "${WANTED[@]}" | gpg --batch --quiet --homedir "$home" --import
  gpg --batch --homedir "$home" "${armour[@]}" --export >"$home/merged"
  cat "$home/merged" >"$ring"
}

# apt-get exits with 0 when it continues with an old list, so its output is checked as well.
update() { apt-get -o APT::Update::Error-Mode=any update 2>&1; }

if said="$(update)" && [ -z "$(wanted_of "$said")" ]; then
  exit 0
fi
mapfile -t WANTED < <(wanted_of "$said")
[ "${#WANTED[@]}" -gt 0 ] || refuse "apt-get update failed, and not for one of ROS's two keys: $said"

HOME_OF_KEYS="$(mktemp -d)"
trap 'rm -rf "$HOME_OF_KEYS"' EXIT
echo "apt_update: the key ${WANTED[*]} of this image has run out; fetching the prolonged one"
gpg --batch --quiet --homedir "$HOME_OF_KEYS" --keyserver "$KEYSERVER" --recv-keys "${WANTED[@]}" ||
  refuse "the key ${WANTED[*]} cannot be fetched from $KEYSERVER; put it in by hand (docs/containers.md)"
# Put the keys into the keyrings that these sources name, else where apt looks for every source.
mapfile -t RINGS < <(sources_of "$said" | while read -r address; do rings_of "$address"; done | sort -u)
[ "${#RINGS[@]}" -gt 0 ] || RINGS=("$TRUSTED")
for ring in "${RINGS[@]}"; do
  merge_into "$ring"
done
said="$(update)" || refuse "apt-get update fails with the prolonged key, too: $said"
