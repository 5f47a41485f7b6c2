#!/bin/sh
# mesh.sh OPERATOR|- CIDR BACKEND: create the mesh, unless it is there; refuse another one.
# With a folder of the operator's credentials by way of a host, with `-` on this one.
set -eu
operator=$1
cidr=$2
backend=$3
run() {
    if [ "$operator" = - ]; then
        agentctl "$@"
    else
        sh "$(dirname "$HOSTMESH_RELAY")/on-host.sh" "$operator" agentctl --as-operator operator.toml "$@"
    fi
}

status=0
config=$(run config show -o json 2>&1) || status=$?
no_mesh=16 # docs/exit-status.md
if [ $status = $no_mesh ]; then
    run config init --cidr "$cidr" --backend "$backend" --yes
    echo created
elif [ $status != 0 ]; then
    printf '%s\n' "$config" >&2
    exit $status
elif ! printf '%s' "$config" | tr -d ' \n' | grep -qF "\"$cidr\""; then
    printf 'etcd has a mesh with another range than %s: %s\n' "$cidr" "$config" >&2
    exit 24
fi
# A lease counts only with its owner's record then: no host can claim for another.
[ "$operator" = - ] || run config set --owners required
