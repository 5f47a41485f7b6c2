#!/bin/sh
# Certificates and settings for an etcd of three members (or any odd number) that speaks TLS only.
#
#   deploy/etcd/make-certs.sh FOLDER etcd1=10.0.0.5 etcd2=10.0.0.6 etcd3=10.0.0.7
#
# FOLDER/etcd1 etc. is what belongs into /etc/hostmesh-etcd on that machine (chown -R etcd: it, the
# service reads it as that user), FOLDER/ca.crt what the agents need ([etcd] ca_file). FOLDER/ca.key
# signs more of them and belongs on none of the machines.
# Run it again with the same FOLDER to renew: the CA stays. HOSTMESH_DAYS: how long they are valid (825).
# A member's name in DNS may follow its address: etcd1=10.0.0.5,etcd1.example.com
set -eu
umask 077
fail() { printf 'make-certs: %s\n' "$*" >&2; exit 1; }
[ $# -ge 2 ] || fail "usage: make-certs.sh FOLDER NAME=ADDRESS[,DNS NAME]…"
command -v openssl >/dev/null || fail "openssl is missing"
folder=$1
shift
days=${HOSTMESH_DAYS:-825}
mkdir -p "$folder"

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

if [ ! -e "$folder/ca.key" ]; then
    new_key "$folder/ca.key"
    openssl req -x509 -new -key "$folder/ca.key" -out "$folder/ca.crt" -subj "/CN=hostmesh etcd CA" \
        -days 3650 -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
    chmod 644 "$folder/ca.crt"
fi

cluster=
for member in "$@"; do
    case $member in
    *=?*) ;;
    *) fail "$member is not NAME=ADDRESS" ;;
    esac
    address=${member#*=}
    cluster="$cluster${cluster:+,}${member%%=*}=https://${address%%,*}:2380"
done

for member in "$@"; do
    name=${member%%=*}
    addresses=${member#*=}
    address=${addresses%%,*}
    names="IP:$address,IP:127.0.0.1"
    [ "$addresses" = "$address" ] || names="$names,DNS:${addresses#*,}"
    own=$folder/$name
    mkdir -p "$own"
    new_key "$own/server.key"
    # One certificate for clients and peers: a member is a client of the others too.
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$names" >"$own/ext"
    openssl req -new -key "$own/server.key" -subj "/CN=$name" -out "$own/csr"
    openssl x509 -req -in "$own/csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial \
        -days "$days" -extfile "$own/ext" -out "$own/server.crt" 2>/dev/null ||
        fail "$name: the certificate could not be signed (is $address an IP address?)"
    rm "$own/csr" "$own/ext"
    cp "$folder/ca.crt" "$own/ca.crt"
    cat >"$own/etcd.env" <<EOF
ETCD_NAME=$name
ETCD_LISTEN_CLIENT_URLS=https://$address:2379,https://127.0.0.1:2379
ETCD_ADVERTISE_CLIENT_URLS=https://$address:2379
ETCD_LISTEN_PEER_URLS=https://$address:2380
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://$address:2380
ETCD_INITIAL_CLUSTER=$cluster
ETCD_INITIAL_CLUSTER_TOKEN=hostmesh
EOF
    chmod 644 "$own/etcd.env" "$own/ca.crt" "$own/server.crt"
done
printf 'make-certs: %s\n' "$folder: ca.crt for the agents, one folder for each member"
