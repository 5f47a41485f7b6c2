#!/bin/sh
# on-host.sh FOLDER COMMAND…: run COMMAND as root on the host that HOSTMESH_SSH reaches, in a folder
# of its /run that has the files of FOLDER and ends with the command. So credentials of this machine
# can be used there, are no argument of any program, and none of them stays.
#
# HOSTMESH_SSH: ssh, its options and the host. HOSTMESH_SUDO: empty for root, else `sudo -n`.
# HOSTMESH_CA: a file more, which is ca.crt there.
set -eu
folder=$1
shift

quote() { printf "'%s' " "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

# The host expands it. A trap of EXIT alone would not run after a signal.
# shellcheck disable=SC2016
remote='umask 077; d=$(mktemp -d /run/hostmesh-deploy.XXXXXX) && trap "rm -rf $d" EXIT && trap "exit 1" HUP INT TERM PIPE && cd "$d" && tar -xf - &&'
for word in timeout 60 "$@"; do remote="$remote $(quote "$word")"; done
remote="sh -c $(quote "$remote")"
set --
for file in "$folder"/*; do
    [ ! -f "$file" ] || set -- "$@" "${file##*/}"
done
if [ -n "${HOSTMESH_CA:-}" ]; then
    set -- "$@" -C "$(dirname "$HOSTMESH_CA")" "$(basename "$HOSTMESH_CA")"
fi
# HOSTMESH_SSH has words of the shell.
tar -cf - -C "$folder" "$@" | eval "$HOSTMESH_SSH $(quote "${HOSTMESH_SUDO:-} $remote")"
