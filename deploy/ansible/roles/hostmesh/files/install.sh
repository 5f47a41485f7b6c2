#!/bin/sh
# install.sh once|again PACKAGE: install a .deb, or the newest that apt knows of a package's name,
# unless it is there. `again`: even if that version is there. Prints a line only if it did something.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
get() {
    apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold --allow-downgrades \
        "$@" >&2
}
version() { dpkg-query -W -f '${db:Status-Status} ${Version}' hostmesh 2>/dev/null || true; }

how=$1
package=$2
# An installation was cut off, or still goes on: apt-get waits for its end, dpkg does not.
if [ -n "$(dpkg --audit)" ]; then
    get --fix-broken install || true
    dpkg --configure -a >&2
fi
before=$(version)
case $package in
/*) wanted="installed $(dpkg-deb -f "$package" Version)" ;;
*)
    get update
    wanted="installed $(apt-cache policy hostmesh | sed -n 's/^  Candidate: //p')"
    ;;
esac
if [ "$before" = "$wanted" ] && [ "$how" = once ]; then exit 0; fi
set -- install "$package"
[ "$before" != "$wanted" ] || set -- "$@" --reinstall
if ! command -v dockerd >/dev/null; then
    set -- "$@" docker.io
    # Since Debian 13 the client has a package of its own.
    if apt-cache show docker-cli >/dev/null 2>&1; then set -- "$@" docker-cli; fi
fi
get "$@" || { get update && get "$@"; }
echo "hostmesh: installed $(version)"
