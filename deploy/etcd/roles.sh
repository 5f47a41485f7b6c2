#!/bin/sh
# Users and roles in etcd, so that an agent's account can write only where agents must.
#
#   ETCDCTL_ENDPOINTS=https://10.0.0.5:2379 ETCDCTL_CACERT=ca.crt \
#       deploy/etcd/roles.sh [--prefix /hostmesh] FOLDER
#
# Run it after the cluster is up; it makes random passwords and enables authentication. Run again, after
# it was cut off for example, it makes what is missing and gives the accounts the passwords of FOLDER:
# without a file there, a new one. The passwords are in FOLDER, one file each:
#   agent     for every host: [etcd] username = "hostmesh-agent", password_file
#             reads the mesh; writes leases, heartbeats, memory, turns, marks of clones, and the
#             mark of an alarm
#   operator  for `agentctl config` and `agentctl reserve`: reads and writes all of the mesh
#   root      for etcd itself
# With --agents-create-config agents may also write the mesh's config: for hosts that bring [mesh].
# etcd cannot tell one agent from another: what it protects is the config and the reservations, and
# every other key.
set -eu
umask 077
prefix=/hostmesh
create=no
fail() { printf 'roles: %s\n' "$*" >&2; exit 1; }
while [ $# -gt 1 ]; do
    case $1 in
    --prefix) prefix=$2; shift ;;
    --agents-create-config) create=yes ;;
    *) fail "unknown option $1" ;;
    esac
    shift
done
[ $# = 1 ] || fail "usage: roles.sh [--prefix PREFIX] [--agents-create-config] FOLDER"
folder=$1
mkdir -p "$folder"
export ETCDCTL_API=3
ctl() { etcdctl "$@" >/dev/null || fail "etcdctl $1 $2 failed"; }
grant() { ctl role grant-permission --prefix=true "$1" "$2" "$prefix/$3"; }

# After an earlier run that came to its end etcd wants to know who asks.
if [ -s "$folder/root" ] && ! etcdctl role list >/dev/null 2>&1; then
    ETCDCTL_USER="root:$(cat "$folder/root")"
    export ETCDCTL_USER
fi
etcdctl role list >/dev/null ||
    fail "etcd's roles cannot be read (authentication is on, and root's password is not in $folder/root?)"

role() { etcdctl role get "$1" >/dev/null 2>&1 || ctl role add "$1"; }
role hostmesh-agent
grant hostmesh-agent read ""
for kind in subnets hosts memory turns clones; do
    grant hostmesh-agent readwrite "$kind/"
done
# The mark that holders come back first: written on an alarm, and in one transaction with the config
# when a lost etcd is filled again.
ctl role grant-permission hostmesh-agent readwrite "$prefix/grace"
if [ $create = yes ]; then
    ctl role grant-permission hostmesh-agent readwrite "$prefix/config"
fi
role hostmesh-operator
grant hostmesh-operator readwrite ""

user() {
    if [ ! -s "$folder/$1" ]; then
        openssl rand -hex 24 >"$folder/.$1"
        mv "$folder/.$1" "$folder/$1"
    fi
    verb=passwd
    etcdctl user get "$2" >/dev/null 2>&1 || verb=add
    etcdctl user $verb "$2" --interactive=false <"$folder/$1" >/dev/null || fail "etcdctl user $verb $2 failed"
    ctl user grant-role "$2" "$3"
}
user agent hostmesh-agent hostmesh-agent
user operator hostmesh-operator hostmesh-operator
user root root root
ctl auth enable
printf 'roles: authentication is on; passwords are in %s\n' "$folder"
