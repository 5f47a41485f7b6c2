#!/bin/sh
# account.sh HOSTS.SH FOLDER NAME ID keep|renew: make the account of a host, unless its certificate
# is there and holds for a month. `renew`: also give its role what this version writes.
set -eu
own=$2/hosts/$3
# agent.toml is written last.
if [ "$5" = keep ] && [ -e "$own/agent.toml" ] && [ "$(cat "$own/id" 2>/dev/null)" = "$4" ] &&
    openssl x509 -in "$own/etcd.crt" -noout -checkend 2592000 >/dev/null 2>&1; then
    exit 0
fi
sh "$1" --folder "$2" add "$3" --id "$4"
echo account made
