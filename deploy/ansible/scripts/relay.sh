#!/bin/sh
# Run a question of hosts.sh to etcd on a member of it: the machine that deploys needs ssh only.
# hosts.sh names the credentials in its environment; there they are in a folder that ends with the call.
set -eu
exec sh "$(dirname "$0")/on-host.sh" "$(dirname "$ETCDCTL_CERT")" \
    env ETCDCTL_API=3 "ETCDCTL_ENDPOINTS=$ETCDCTL_ENDPOINTS" ETCDCTL_CACERT=ca.crt \
    ETCDCTL_CERT=etcd.crt ETCDCTL_KEY=etcd.key "$@"
