#!/bin/sh
# remove.sh COMMAND…: delete a host's records by a COMMAND that ends with `agentctl remove HOST`. A host
# that has none is done.
set -eu
if ! said=$("$@" 2>&1); then
    case $said in
    *"no host of the mesh is known"*) ;; # it has left in order
    *)
        printf '%s\n' "$said" >&2
        exit 1
        ;;
    esac
fi
