# shellcheck shell=bash
# What the scripts share; sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034  # for those who source this
jobs=$(nproc)

if [ -t 1 ]; then
  bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
  bold='' green='' red='' plain=''
fi

heading() { printf '%s== %s%s\n' "$bold" "$*" "$plain"; }
good() { printf '   %sok%s  %s\n' "$green" "$plain" "$*"; }

fail() {
  printf '%s%s: %s%s\n' "$red" "${0##*/}" "$*" "$plain" >&2
  exit 1
}

# Configures and builds one preset, in build/<preset>, which is kept. Quiet but for a status line on a terminal; what
# goes wrong is shown.
build() {
  local preset=$1 log="$root/build/$1.log" quiet=--quiet
  shift
  [ -t 1 ] && quiet=
  mkdir -p "$root/build"
  if ! (cd "$root" && cmake --preset "$preset") >"$log" 2>&1; then
    cat "$log" >&2
    fail "cmake --preset $preset failed"
  fi
  # shellcheck disable=SC2086  # no word where it is empty
  (cd "$root" && cmake --build --preset "$preset" -j "$jobs" "$@" -- $quiet) ||
    fail "building preset $preset failed"
}
