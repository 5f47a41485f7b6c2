#!/bin/sh
# Install etcd and its client unless they are there. Debian's own service gives way to ours.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
get() { apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >&2; }

if command -v etcd >/dev/null && command -v etcdctl >/dev/null && id etcd >/dev/null 2>&1; then exit 0; fi
# An installation was cut off, or still goes on: apt-get waits for its end, dpkg does not.
if [ -n "$(dpkg --audit)" ]; then
    get --fix-broken install || true
    dpkg --configure -a >&2
fi
had=$(command -v etcd || true)
get install etcd-server etcd-client || { get update && get install etcd-server etcd-client; }
# It listens on the same port.
[ -n "$had" ] || systemctl disable --now etcd.service >&2 || true
echo installed
