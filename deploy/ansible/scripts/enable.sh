#!/bin/sh
# enable.sh HOSTS.SH FOLDER: turn authentication on, unless it is.
set -eu
if sh "$(dirname "$HOSTMESH_RELAY")/as-admin.sh" "$2" auth status |
    grep -q 'Authentication Status: true'; then
    exit 0
fi
sh "$1" --folder "$2" enable
echo enabled
