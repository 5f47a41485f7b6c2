#!/bin/sh
# as-admin.sh FOLDER COMMAND…: run etcdctl with the administrator's account, by way of a member.
set -eu
folder=$1
shift
HOSTMESH_CA=$folder/ca.crt ETCDCTL_ENDPOINTS=$(cat "$folder/endpoints") ETCDCTL_CERT=$folder/admin/etcd.crt
export HOSTMESH_CA ETCDCTL_ENDPOINTS ETCDCTL_CERT
exec sh "$HOSTMESH_RELAY" etcdctl "$@"
