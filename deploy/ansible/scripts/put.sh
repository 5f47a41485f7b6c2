#!/bin/sh
# put.sh FOLDER OWNER: put the files of an archive on standard input (tar, base64) into a folder, each
# in one step, with the modes of credentials. Prints a line for each file that was another before.
set -eu
umask 077
folder=$1
owner=$2
new=$(mktemp -d /run/hostmesh-deploy.XXXXXX)
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM
base64 -d | tar -xf - -C "$new"
if [ ! -d "$folder" ]; then install -d -o "$owner" -g "$owner" -m 700 "$folder"; fi
for file in "$new"/*; do
    name=${file##*/}
    case $name in
    *.crt | *.env) mode=644 ;;
    *) mode=600 ;;
    esac
    if cmp -s "$file" "$folder/$name" && [ "$(stat -c '%a %U' "$folder/$name")" = "$mode $owner" ]; then
        continue
    fi
    install -o "$owner" -g "$owner" -m $mode "$file" "$folder/.$name.new"
    mv "$folder/.$name.new" "$folder/$name"
    echo "put $name"
done
