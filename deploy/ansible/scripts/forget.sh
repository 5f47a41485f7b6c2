#!/bin/sh
# forget.sh HOSTS.SH FOLDER NAME: delete a host's account, then its records. A host that has none is done.
set -eu
id=$(cat "$2/hosts/$3/id" 2>/dev/null || true)
[ -n "$id" ] || exit 0
# First the records: the folder is the only place that has the id.
scripts=$(dirname "$HOSTMESH_RELAY")
sh "$scripts/remove.sh" sh "$scripts/on-host.sh" "$2/operator" \
    agentctl --as-operator operator.toml remove "$id"
sh "$1" --folder "$2" remove "$3"
