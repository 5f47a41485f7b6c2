#!/bin/sh
# Prepare this clone: .venv from the lock file, and what the tests and the lab need from Debian.
#
#   tests/prepare.sh          the virtual environment only
#   tests/prepare.sh lab      also the programs that namespaces and the lab need (root)
#   tests/prepare.sh full     also the browser of the page's tests (root)
#   tests/prepare.sh bench    the same as lab, and what figures are compared and drawn with (root)
#
# Nothing is installed that is there already, and no Docker or etcd ever: the lab's hosts
# have theirs in root filesystems of their own.
set -eu
cd "$(dirname "$0")/.."
want=${1:-venv}

say() { printf 'prepare: %s\n' "$*"; }
fail() { printf 'prepare: %s\n' "$*" >&2; exit 1; }

# Debian's packages, asked for only where a program is missing. apt has no deadline of its
# own for a lock that another apt holds.
install_packages() {
    [ "$(id -u)" = 0 ] || fail "root is needed to install: $*"
    command -v apt-get >/dev/null || fail "apt-get is missing: install by hand: $*"
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    if ! apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "$@" >"$log" 2>&1; then
        apt-get -o DPkg::Lock::Timeout=300 update -q >>"$log" 2>&1 || true
        apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "$@" >>"$log" 2>&1 ||
            { tail -n 20 "$log" >&2; fail "apt-get could not install: $*"; }
    fi
    rm -f "$log"
}

# A Python that is new enough and can make virtual environments and build an extension.
usable() {
    "$1" - 2>/dev/null <<'PY'
import ensurepip, os, sys, sysconfig, venv
sys.exit(not (sys.version_info >= (3, 11) and
              os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))))
PY
}

find_python() {
    for python in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if command -v "$python" >/dev/null && usable "$python"; then command -v "$python"; return; fi
    done
    return 1
}

command -v cc >/dev/null || install_packages gcc libc6-dev
python=$(find_python) || { install_packages python3 python3-venv python3-dev; python=$(find_python); } ||
    fail "no Python 3.11 or later with venv and headers"

stamp=$( (cat requirements-dev.lock pyproject.toml tests/lab/pyproject.toml; "$python" -V) | sha256sum)
if [ ! -f .venv/hostmesh-stamp ] || [ "$(cat .venv/hostmesh-stamp)" != "$stamp" ] || [ ! -x .venv/bin/agentctl ]; then
    say "making .venv with $("$python" -V) (about a minute)"
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . -e tests/lab
    printf '%s\n' "$stamp" >.venv/hostmesh-stamp
fi

if [ "$want" = lab ] || [ "$want" = full ] || [ "$want" = bench ]; then
    [ "$(id -u)" = 0 ] || fail "root is needed for namespaces; without it: make test-fast"
    packages=
    need() { command -v "$1" >/dev/null || packages="$packages $2"; }
    PATH=$PATH:/usr/sbin:/sbin
    need debootstrap debootstrap
    need ip iproute2
    need unshare util-linux
    need iptables iptables
    need ipset ipset
    need conntrack conntrack
    need tcpdump tcpdump
    need wg wireguard-tools
    need wireguard-go wireguard-go  # most kernels of test machines have no wireguard
    need dnsmasq dnsmasq-base
    need ping iputils-ping
    need dpkg-deb dpkg
    need apt-ftparchive apt-utils
    need gpg gpg
    need gpg-agent gpg-agent
    need gpgconf gpgconf
    need shellcheck shellcheck
    need systemd-nspawn systemd-container
    need zsh zsh  # the completions are tried in the shells themselves
    need fish fish
    if [ "$want" = full ]; then
        need chromium chromium
        need chromedriver chromium-driver
    fi
    if [ "$want" = bench ]; then
        need dnsperf dnsperf
        need iperf3 iperf3
        need qperf qperf
        need ethtool ethtool
        need gnuplot gnuplot-nox
    fi
    # shellcheck disable=SC2086  # a list of package names
    [ -z "$packages" ] || install_packages $packages
fi
