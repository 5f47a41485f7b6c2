#!/bin/sh
# Install Hostmesh on a real host from this clone or an unpacked release: a virtual environment under /opt/hostmesh, the
# units and what belongs to them, and a settings file if there is none. Run it again to upgrade: an
# agent that runs is restarted, the data path and the lease stay as they are meanwhile.
#
#   deploy/install.sh [--etcd http://10.0.0.5:2379[,http://…]] [--start]
#                                     without --etcd: set [etcd] domain or endpoints before you start it
#   deploy/install.sh --uninstall     leave the mesh, then remove what this script installed
#   deploy/install.sh --uninstall --keep-membership
#                                     remove the program only: lease, routes, rules and Docker's
#                                     configuration stay for whatever is installed next
set -eu
cd "$(dirname "$(readlink -f "$0")")/.." # a release has a link to it
umask 022
prefix=/opt/hostmesh
programs=/usr/local/bin
share=/usr/local/share
settings=/etc/hostmesh/agent.toml
protocol_name=/etc/iproute2/rt_protos.d/hostmesh.conf
networkd=/etc/systemd/networkd.conf.d/hostmesh.conf
tunnels=/etc/systemd/network/05-hostmesh.network
unit_folder=/etc/systemd/system
sockets="hostmesh-dns-53.socket hostmesh-dns-54.socket"
name_servers="hostmesh-dns@169.254.20.53.service hostmesh-dns@169.254.20.54.service"
enabled="hostmesh-agent.service hostmesh-docker-gate.service $sockets"
units="$enabled hostmesh-wireguard.service hostmesh-check.service hostmesh-dns@.service"
log_settings=$unit_folder/hostmesh-agent.service.d/log.conf
generated="$share/man/man1/agentctl.1 $share/man/man8/hostmesh-agent.8
    $share/man/man8/hostmesh-dns.8 $share/bash-completion/completions/agentctl $share/zsh/site-functions/_agentctl
    $share/fish/vendor_completions.d/agentctl.fish"
made_folder=/var/lib/hostmesh/made-etc-docker
left_by_removal=/var/lib/hostmesh/left-by-removal
etcd=
start=no
uninstall=no
keep=no

say() { printf 'install: %s\n' "$*"; }
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
[ $keep = no ] || [ $uninstall = yes ] || fail "--keep-membership belongs to --uninstall"
[ "$(id -u)" = 0 ] || fail "root is needed"
# Two programs of one name would replace each other, and an uninstall would take the package's files out.
[ ! -e /usr/lib/hostmesh/bin/python3 ] ||
    fail "the Debian package hostmesh is installed: upgrade that one, or remove it first (apt-get remove hostmesh leaves the mesh)"
have_systemctl() { command -v systemctl >/dev/null; }
systemd_runs() { [ -d /run/systemd/system ] && have_systemctl; }

# A file beside the one that it replaces, so that no program ever reads half of it.
put() {
    mkdir -p "${2%/*}"
    cp "$1" "$2.new"
    chmod "${3:-644}" "$2.new"
    mv "$2.new" "$2"
}

remove_if_ours() {
    if [ -e "$2" ] && cmp -s "$1" "$2"; then rm -f "$2"; fi
    rmdir "${2%/*}" 2>/dev/null || true
}

remove() {
    [ -e $prefix ] || fail "nothing to remove: there is no $prefix"
    if [ $keep = no ] && [ -x $programs/agentctl ]; then
        # Installing again joins again, unless the operator had said leave before.
        if [ -e /var/lib/hostmesh ] && ! grep -qs '"left": true' /var/lib/hostmesh/state.json; then
            touch $left_by_removal
        fi
        # Print what cannot be returned now (etcd away), and remove the files all the same.
        $programs/agentctl leave || say "agentctl leave said the above; going on"
    fi
    if have_systemctl; then
        # shellcheck disable=SC2086  # a list of names
        systemctl disable --now $enabled hostmesh-wireguard.service 2>/dev/null || true
        # shellcheck disable=SC2086  # a list of names
        systemctl stop $name_servers 2>/dev/null || true
        for number in 53 54; do
            ip address del 169.254.20.$number/32 dev lo 2>/dev/null || true
        done
    fi
    for unit in $units; do rm -f "$unit_folder/$unit"; done
    remove_if_ours deploy/deb/log.conf $log_settings
    remove_if_ours deploy/deb/networkd.conf $networkd
    # Its folder is Debian's.
    if cmp -s deploy/deb/tunnels.network $tunnels; then rm -f $tunnels; fi
    remove_if_ours deploy/iproute2.conf $protocol_name
    # shellcheck disable=SC2086  # a list of names
    rm -f $programs/hostmesh-agent $programs/agentctl $programs/hostmesh-dns $generated
    (cd $share && rmdir man/man1 man/man8 bash-completion/completions bash-completion \
        zsh/site-functions zsh fish/vendor_completions.d fish 2>/dev/null) || true
    rm -rf $prefix
    if systemd_runs; then systemctl daemon-reload || true; fi
    if [ $keep = yes ]; then
        say "the program is removed; this host is a member still"
        return
    fi
    rm -rf /run/hostmesh /run/hostmesh-dns
    if [ -e $made_folder ]; then
        # The unit made it for daemon.json, which is given back by now.
        rmdir /etc/docker 2>/dev/null || true
        rm -f $made_folder
    fi
    if [ -e /var/lib/hostmesh/daemon.json.journal ]; then
        say "Docker's daemon.json still has keys of Hostmesh; what it was before is in"
        say "/var/lib/hostmesh/daemon.json.before-hostmesh (not there: there was no daemon.json)"
        say "removed; /etc/hostmesh and /var/lib/hostmesh are kept: look at daemon.json before you rm -r them"
        return
    fi
    say "removed; /etc/hostmesh and /var/lib/hostmesh are kept (rm -r them to forget this host)"
}

# A Python that is new enough, can make virtual environments and build an extension.
usable() {
    "$1" - 2>/dev/null <<'PY'
import ensurepip, os, sys, sysconfig, venv
sys.exit(not (sys.version_info >= (3, 11) and
              os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))))
PY
}

find_python() {
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$python" >/dev/null && usable "$python"; then command -v "$python"; return; fi
    done
    return 1
}

# Made beside the old one and swapped in whole, so that a failed upgrade leaves the old one.
make_environment() {
    rm -rf $prefix/venv.new
    mkdir -p $prefix
    "$python" -m venv $prefix/venv.new
    # The build tools have versions and hashes, too. The clone is not built in: what an
    # earlier build left there would be installed with the rest.
    sed -n '/^setuptools==/,/[^\\]$/p' requirements-dev.lock >"$work/build.lock"
    mkdir "$work/source"
    cp -R agent pyproject.toml README.md LICENSE "$work/source"
    pip --require-hashes -r "$work/build.lock"
    pip --require-hashes --no-build-isolation -r requirements.lock
    pip --no-deps --no-build-isolation "$work/source"
    $prefix/venv.new/bin/python -I -c 'import agent.ctl.main, agent.daemon.app' || fail "what was installed does not run"
    $prefix/venv.new/bin/python -I -m agent.ctl.manpages "$work/made"
    $prefix/venv.new/bin/python -I -m agent.ctl.completions "$work/made"
    rm -rf $prefix/venv.old
    [ ! -d $prefix/venv ] || mv $prefix/venv $prefix/venv.old
    mv $prefix/venv.new $prefix/venv
    rm -rf $prefix/venv.old
}

pip() {
    $prefix/venv.new/bin/python -m pip install -q --no-input --disable-pip-version-check "$@" ||
        fail "the dependencies could not be installed: see above"
}

put_files() {
    # Wrappers instead of links: console scripts of a moved environment name its old place. -I: what
    # lies in the folder where root happens to be is not imported.
    for program in hostmesh-agent:agent agentctl:agent.ctl hostmesh-dns:agent.dns.main; do
        printf '#!/bin/sh\nexec %s/venv/bin/python -I -m %s "$@"\n' $prefix "${program#*:}" >"$work/program"
        put "$work/program" "$programs/${program%%:*}" 755
    done
    put "$work/made/agentctl.bash" $share/bash-completion/completions/agentctl
    put "$work/made/_agentctl" $share/zsh/site-functions/_agentctl
    put "$work/made/agentctl.fish" $share/fish/vendor_completions.d/agentctl.fish
    put "$work/made/agentctl.1" $share/man/man1/agentctl.1
    for page in hostmesh-agent.8 hostmesh-dns.8; do put "$work/made/$page" $share/man/man8/$page; done
    # One that is there stays: the operator may have another routes.protocol.
    [ -e $protocol_name ] || put deploy/iproute2.conf $protocol_name
    [ -e $networkd ] || put deploy/deb/networkd.conf $networkd
    [ -e $tunnels ] || put deploy/deb/tunnels.network $tunnels
    for unit in $units; do put "systemd/$unit" "$unit_folder/$unit"; done
    put deploy/deb/log.conf $log_settings
}

# Before anything is done: what is wrong with the settings, the new version's eyes see first.
check_settings() {
    proposed=$settings
    if [ -e $settings ]; then
        [ -z "$etcd" ] || say "$settings is kept as it is: --etcd is not written to it"
    else
        proposed="$work/agent.toml"
        if [ -n "$etcd" ]; then
            {
                printf '# Every setting: docs/settings.md\n[etcd]\nendpoints = ['
                printf '%s' "$etcd" | sed 's/[^,]*/"&"/g; s/,/, /g'
                printf ']\n'
            } >"$proposed"
        else
            cp deploy/deb/agent.toml "$proposed"
        fi
    fi
    "$python" -B -m agent --check --settings "$proposed" >/dev/null || fail "nothing was changed"
}

start_or_say() {
    if [ $start = yes ] && have_systemctl; then
        # shellcheck disable=SC2086  # a list of names
        systemctl enable $enabled
    fi
    if ! systemd_runs; then
        have_systemctl && return
        say "no systemd here: run $programs/hostmesh-agent from your own supervisor"
        return
    fi
    systemctl daemon-reload
    # One after the other: each is waited for until it answers, and queries wait in its socket.
    for server in $name_servers; do systemctl try-restart "$server"; done
    # Not waited for: READY means that this host is a member, and without etcd that takes as long
    # as it takes. One that runs is always restarted: its program is not there any more.
    if [ $start = yes ]; then
        # shellcheck disable=SC2086  # a list of names
        systemctl start $sockets
        systemctl --no-block restart hostmesh-agent.service
        say "started; it joins now: agentctl wait --ready --timeout 60s"
        return
    fi
    case "$(systemctl is-active hostmesh-agent.service || true)" in
    active | activating | reloading | refreshing)
        systemctl --no-block restart hostmesh-agent.service
        say "the agent is restarted"
        ;;
    *) say "next: systemctl enable --now $enabled" ;;
    esac
}

if [ $uninstall = yes ]; then
    remove
    exit 0
fi
command -v iptables >/dev/null || fail "iptables is missing: apt-get install iptables"
command -v cc >/dev/null || fail "a C compiler is missing (python-iptables is built here): apt-get install gcc libc6-dev"
python=$(find_python) ||
    fail "no Python 3.11 or later with venv and headers: apt-get install python3-venv python3-dev"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
check_settings
make_environment
[ -e $settings ] || put "$proposed" $settings
put_files
# A removal made this host leave; the operator did not ask it to stay out.
if [ -e $left_by_removal ]; then
    $programs/agentctl join >/dev/null 2>&1 || true
    rm -f $left_by_removal
fi
start_or_say
