#!/bin/sh
# Install Hostmesh on a real host from this clone: a virtual environment under /opt/hostmesh,
# the units, and a settings file if there is none. Run it again to upgrade: the data path and
# the lease stay as they are while the agent restarts.
#
#   deploy/install.sh [--etcd http://10.0.0.5:2379[,http://…]] [--start]
#   deploy/install.sh --uninstall     leave the mesh, then remove what this script installed
#   deploy/install.sh --uninstall --keep-membership
#                                     remove the program only: lease, routes, rules and Docker's
#                                     configuration stay for whatever is installed next
set -eu
cd "$(dirname "$0")/.."
prefix=/opt/hostmesh
etcd=
start=no
uninstall=no
keep=no
protocol_name=/etc/iproute2/rt_protos.d/hostmesh.conf
units="hostmesh-agent.service hostmesh-docker-gate.service"
made_folder=/var/lib/hostmesh/made-etc-docker

fail() { printf 'install: %s\n' "$*" >&2; exit 1; }
while [ $# -gt 0 ]; do
    case $1 in
        --etcd) [ $# -ge 2 ] || fail "--etcd needs a value"; etcd=$2; shift ;;
        --start) start=yes ;;
        --uninstall) uninstall=yes ;;
        --keep-membership) keep=yes ;;
        *) fail "unknown option $1 (see the head of this file)" ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || fail "root is needed"

if [ $uninstall = yes ]; then
    if [ $keep = no ] && [ -x /usr/local/bin/agentctl ]; then
        # What cannot be given back now (etcd away) is said, and does not keep the files here.
        /usr/local/bin/agentctl leave || printf 'install: agentctl leave said the above; going on\n' >&2
    fi
    if command -v systemctl >/dev/null; then
        # shellcheck disable=SC2086  # a list of names
        systemctl disable --now $units 2>/dev/null || true
    fi
    for unit in $units; do rm -f /etc/systemd/system/"$unit"; done
    rm -f /usr/local/bin/hostmesh-agent /usr/local/bin/agentctl \
        $protocol_name
    rm -rf $prefix
    if command -v systemctl >/dev/null; then systemctl daemon-reload 2>/dev/null || true; fi
    if [ $keep = no ] && [ -e $made_folder ]; then
        # The unit made it for daemon.json, which is given back by now.
        rmdir /etc/docker 2>/dev/null || true
        rm -f $made_folder
    fi
    [ $keep = no ] || { printf 'install: the program is removed; this host is a member still\n'; exit 0; }
    printf 'install: removed; /etc/hostmesh and /var/lib/hostmesh are kept (rm -r them to forget this host)\n'
    exit 0
fi

[ -e /etc/hostmesh/agent.toml ] || [ -n "$etcd" ] || fail "say where etcd is: --etcd http://10.0.0.5:2379"
command -v iptables >/dev/null || fail "iptables is missing: apt-get install iptables"
command -v cc >/dev/null || fail "a C compiler is missing (python-iptables is built here): apt-get install gcc libc6-dev python3-dev"
python=
for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v $candidate >/dev/null && $candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "Python 3.11 or later with venv is missing: apt-get install python3-venv"

# Made beside the old one and swapped in whole, so that a failed upgrade leaves the old one.
rm -rf $prefix/venv.new
mkdir -p $prefix
"$python" -m venv $prefix/venv.new
$prefix/venv.new/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock ||
    fail "the dependencies could not be installed (see above; python-iptables needs Python.h: apt-get install python3-dev)"
$prefix/venv.new/bin/python -m pip install -q --disable-pip-version-check --no-deps .
rm -rf $prefix/venv.old
[ ! -d $prefix/venv ] || mv $prefix/venv $prefix/venv.old
mv $prefix/venv.new $prefix/venv
rm -rf $prefix/venv.old

# Wrappers instead of links: console scripts of a moved environment name its old place. -I: what
# lies in the folder where root happens to be is not imported.
for program in hostmesh-agent:agent agentctl:agent.ctl; do
    printf '#!/bin/sh\nexec %s/venv/bin/python -I -m %s "$@"\n' $prefix "${program#*:}" >/usr/local/bin/"${program%%:*}".new
    chmod 755 /usr/local/bin/"${program%%:*}".new
    mv /usr/local/bin/"${program%%:*}".new /usr/local/bin/"${program%%:*}"
done

mkdir -p /etc/hostmesh
if [ ! -e /etc/hostmesh/agent.toml ]; then
    {
        printf '# Every setting: docs/settings.md\n[etcd]\nendpoints = ['
        printf '%s' "$etcd" | sed 's/[^,]*/"&"/g; s/,/, /g'
        printf ']\n'
    } >/etc/hostmesh/agent.toml
    chmod 600 /etc/hostmesh/agent.toml
fi
/usr/local/bin/hostmesh-agent --check

# One that is there stays: the operator may have another routes.protocol.
if [ ! -e $protocol_name ]; then
    mkdir -p "${protocol_name%/*}"
    cp deploy/iproute2.conf $protocol_name
    chmod 644 $protocol_name
fi

if [ -d /run/systemd/system ]; then
    for unit in $units; do cp systemd/"$unit" /etc/systemd/system/"$unit"; done
    systemctl daemon-reload
    if [ $start = yes ]; then
        # shellcheck disable=SC2086  # a list of names
        systemctl enable $units
        systemctl restart hostmesh-agent.service
    else
        printf 'install: next: systemctl enable --now hostmesh-agent hostmesh-docker-gate\n'
    fi
else
    printf 'install: no systemd here: run /usr/local/bin/hostmesh-agent from your own supervisor\n'
fi
