#!/bin/sh
# Credentials for the etcd of a mesh: TLS certificates for its members, and one account per host that
# may write only that host's own keys. Needs openssl and etcdctl (Debian: etcd-client).
#
#   hosts.sh members etcd1=10.0.0.5 etcd2=10.0.0.6 etcd3=10.0.0.7
#                          CAs, and for each member what belongs into its /etc/hostmesh-etcd
#                          (owner etcd). A DNS name may follow: etcd1=10.0.0.5,etcd1.example.com
#   hosts.sh add web7 --id HOSTID
#                          account, role and certificate of one host; FOLDER/hosts/web7 is what belongs
#                          into /etc/hostmesh there. `hostmesh-agent --host-id` prints HOSTID.
#                          Again: renew the certificate and repair the role; nothing is revoked
#   hosts.sh enable        the operator's account; from now on etcd refuses everybody without one
#   hosts.sh rotate web7   another key and account; the previous one is refused at once. Also: operator, admin
#   hosts.sh remove web7   delete its account and role
#   hosts.sh list
#
# Options, before the verb: --folder FOLDER (hostmesh-pki); --prefix PREFIX: the mesh's in etcd (as the
# account had it before, /hostmesh at first); --password: give accounts a password, for an etcd that is not
# started with --client-cert-auth; --config: a host that is added may write the mesh's config too, for hosts
# that bring [mesh].
# Run any of it again after it was cut off. ETCDCTL_ENDPOINTS: another etcd than that of `members`;
# ETCDCTL_USER: root of an etcd that has accounts already; HOSTMESH_DAYS: how long certificates are
# valid (825). FOLDER signs for every host: keep it off them.
set -eu
umask 077
folder=hostmesh-pki
prefix=
password=no
config=no
# The keys that a host writes; it only reads all others. Not below its own id: flannel's format lets any host claim any
# subnet, hosts take turns, and an alarm holds new claims back for all.
keys='subnets/ turns/ grace hosts/<id> memory/<id> owners/<id>/ clones/<id>/ slices/<id>/ endpoints/<id>/ checks/<id>'
days=${HOSTMESH_DAYS:-825}
fail() { printf 'hosts.sh: %s\n' "$*" >&2; exit 1; }
why() { tail -n 1 "$work/error" | grep . || echo "no answer in time"; }
# HOSTMESH_RELAY: a script that runs what asks etcd on another machine (hostmesh-deploy).
at_etcd() { timeout 15 ${HOSTMESH_RELAY:+sh "$HOSTMESH_RELAY"} "$@"; }
etcdctl() { at_etcd etcdctl "$@"; } # while there is no leader it would wait for ever
say() { printf 'hosts.sh: %s\n' "$*"; }
while [ $# -gt 0 ]; do
    case $1 in
    --folder) folder=${2:?}; shift ;;
    --prefix) prefix=${2:?}; prefix=${prefix%/}; shift ;;
    --password) password=yes ;;
    --config) config=yes ;;
    --*) fail "unknown option $1" ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || fail "usage: hosts.sh [--folder FOLDER] [--prefix PREFIX] [--password] [--config] members|add|enable|rotate|remove|list …"
verb=$1
shift
command -v openssl >/dev/null || fail "openssl is missing"
mkdir -p "$folder"
work=$(mktemp -d "$folder/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Every file is written aside and renamed: no program reads half of one, and an interruption loses none.
put() { chmod "${2:-600}" "$work/put"; mv "$work/put" "$1"; }

# --- certificates ---

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$work/put" && put "$1"; }

# Two CAs: one for members, one for clients. A host's certificate must not open the port by which
# members replicate, where no account is asked for.
authority() {
    [ ! -e "$folder/$1.crt" ] || return 0
    new_key "$folder/$1.key"
    openssl req -x509 -new -key "$folder/$1.key" -out "$work/put" -subj "/CN=hostmesh $2 CA" -days 3650 \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
    put "$folder/$1.crt" 644
}

# certificate CA KEY COMMON-NAME EXTENSIONS FILE
certificate() {
    printf '%b' "$4" >"$work/extensions"
    openssl req -new -key "$2" -subj "/CN=$3" -out "$work/request"
    openssl x509 -req -in "$work/request" -CA "$folder/$1.crt" -CAkey "$folder/$1.key" \
        -set_serial "0x$(openssl rand -hex 16)" -days "$days" -extfile "$work/extensions" -out "$work/put" \
        2>"$work/error" || fail "the certificate of $3 could not be signed: $(why)"
    put "$5" 644
}

members() {
    [ $# -gt 0 ] || fail "usage: hosts.sh members NAME=ADDRESS[,DNS NAME]…"
    authority ca "etcd"
    authority clients-ca "etcd clients"
    cluster=
    endpoints=
    for member in "$@"; do
        case $member in *?=?*) ;; *) fail "$member is not NAME=ADDRESS" ;; esac
        address=${member#*=}
        cluster="$cluster${cluster:+,}${member%%=*}=https://${address%%,*}:2380"
        endpoints="$endpoints${endpoints:+,}https://${address%%,*}:2379"
    done
    for member in "$@"; do one_member "${member%%=*}" "${member#*=}"; done
    printf '%s\n' "$endpoints" >"$work/put"
    put "$folder/endpoints"
    say "$folder: one folder for each member, to be copied to its /etc/hostmesh-etcd"
}

one_member() {
    address=${2%%,*}
    names="IP:$address,IP:127.0.0.1"
    [ "$address" = "$2" ] || names="$names,DNS:${2#*,}"
    own=$folder/$1
    mkdir -p "$own"
    new_key "$work/key"
    # One certificate for clients and peers: a member is a client of the others, too.
    certificate ca "$work/key" "$1" "subjectAltName=$names\nextendedKeyUsage=serverAuth,clientAuth\n" \
        "$work/server.crt"
    mv "$work/key" "$own/server.key"
    mv "$work/server.crt" "$own/server.crt"
    for name in ca clients-ca; do cp "$folder/$name.crt" "$work/put" && put "$own/$name.crt" 644; done
    cat >"$work/put" <<SETTINGS
ETCD_NAME=$1
ETCD_LISTEN_CLIENT_URLS=https://$address:2379,https://127.0.0.1:2379
ETCD_ADVERTISE_CLIENT_URLS=https://$address:2379
ETCD_LISTEN_PEER_URLS=https://$address:2380
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://$address:2380
ETCD_INITIAL_CLUSTER=$cluster
ETCD_INITIAL_CLUSTER_TOKEN=hostmesh
SETTINGS
    put "$own/etcd.env" 644
}

# --- accounts ---

quoted() { printf '%s' "$1" | sed 's/[^,]*/"&"/g; s/,/, /g'; }

admin=$folder/admin
previous=$folder/admin.previous

# Let etcdctl act as the account of FOLDER/admin, by certificate or by password.
connect() {
    [ -n "${HOSTMESH_RELAY:-}" ] || command -v etcdctl >/dev/null || fail "etcdctl is missing (Debian: apt-get install etcd-client)"
    export ETCDCTL_API=3
    if [ -z "${ETCDCTL_ENDPOINTS:-}" ]; then
        [ -e "$folder/endpoints" ] || fail "which etcd? set ETCDCTL_ENDPOINTS, or run: hosts.sh members …"
        ETCDCTL_ENDPOINTS=$(cat "$folder/endpoints")
    fi
    export ETCDCTL_ENDPOINTS
    if [ ! -e "$admin" ] && [ -e "$previous" ]; then mv "$previous" "$admin"; fi # cut off in rotate
    if [ -e "$folder/ca.crt" ]; then export ETCDCTL_CACERT="${ETCDCTL_CACERT:-$folder/ca.crt}"; fi
    name_account "$admin" admin
    if [ -e "$folder/clients-ca.key" ]; then
        if ! openssl x509 -in "$admin/etcd.crt" -noout -checkend 604800 >/dev/null 2>&1; then certify "$admin"; fi
        export ETCDCTL_CERT="$admin/etcd.crt" ETCDCTL_KEY="$admin/etcd.key"
    fi
    if [ -z "${ETCDCTL_USER:-}" ] && [ -s "$admin/etcd-password" ] && ! etcdctl user list >/dev/null 2>&1; then
        ETCDCTL_USER="$(cat "$admin/user"):$(cat "$admin/etcd-password")" # not an argument: others see those
        export ETCDCTL_USER
    fi
    users=$(etcdctl user list 2>"$work/error") || fail "etcd: $(why)"
}

ctl() { etcdctl "$@" >/dev/null 2>"$work/error" || fail "etcdctl $*: $(why)"; }
role() { etcdctl role get "$1" >/dev/null 2>&1 || ctl role add "$1"; }
grant() { # ROLE read|readwrite KEY: all keys below one that ends with a slash
    case $3 in
    '' | */) ctl role grant-permission --prefix=true "$1" "$2" "$prefix/$3" ;;
    *) ctl role grant-permission "$1" "$2" "$prefix/$3" ;;
    esac
}
users_of() { printf '%s\n' "$users" | grep -E "^hostmesh-$1-[0-9a-f]{8}\$" || true; }

# name_account FOLDER WHOSE [new]: choose the user's name. No name is used twice: etcd takes every
# certificate whose name is a user's, those of a removed account too.
name_account() {
    mkdir -p "$1"
    renew=no
    if [ ! -s "$1/user" ] || [ "${3:-}" = new ]; then
        printf 'hostmesh-%s-%s\n' "$2" "$(openssl rand -hex 4)" >"$work/put"
        put "$1/user"
        renew=yes
    fi
}

certify() { # FOLDER
    if [ ! -e "$1/etcd.key" ] || [ "$renew" = yes ]; then new_key "$1/etcd.key"; fi
    certificate clients-ca "$1/etcd.key" "$(cat "$1/user")" 'extendedKeyUsage=clientAuth\n' "$1/etcd.crt"
}

# account FOLDER ROLE: make the user that name_account chose, and what authenticates it.
account() {
    name=$(cat "$1/user")
    how=add
    ! printf '%s\n' "$users" | grep -qx "$name" || how=passwd
    if [ $password = yes ] || [ -e "$1/etcd-password" ]; then
        if [ ! -s "$1/etcd-password" ] || [ "$renew" = yes ]; then
            openssl rand -hex 24 >"$work/put"
            put "$1/etcd-password"
        fi
        etcdctl user $how "$name" --interactive=false <"$1/etcd-password" >/dev/null 2>"$work/error" ||
            fail "etcdctl user $how $name: $(why)"
    else
        takes_certificates || fail "${ETCDCTL_ENDPOINTS%%,*} is not started with --client-cert-auth: say --password"
        [ $how = passwd ] || ctl user add "$name" --no-password
    fi
    ctl user grant-role "$name" "$2"
    [ ! -e "$folder/clients-ca.key" ] || certify "$1"
    if [ -n "${ETCDCTL_CACERT:-}" ]; then cp "$ETCDCTL_CACERT" "$work/put" && put "$1/etcd-ca.crt" 644; fi
}

takes_certificates() {
    [ -e "$folder/clients-ca.key" ] || return 1
    place=${ETCDCTL_ENDPOINTS%%,*}
    at_etcd openssl s_client -connect "${place#https://}" </dev/null 2>/dev/null | grep -q "^Acceptable client certificate CA"
}

# same_prefix FILE: without --prefix, that of the settings that were written before.
same_prefix() {
    if [ -z "$prefix" ] && [ -e "$1" ]; then prefix=$(sed -n 's/^prefix = "\(.*\)"$/\1/p' "$1"); fi
    prefix=${prefix:-/hostmesh}
}

# settings FOLDER WHERE FILE: the section [etcd], with files named below WHERE.
settings() {
    {
        printf '[etcd]\nendpoints = [%s]\n' "$(quoted "$ETCDCTL_ENDPOINTS")"
        [ "$prefix" = /hostmesh ] || printf 'prefix = "%s"\n' "$prefix"
        [ ! -e "$1/etcd-ca.crt" ] || printf 'ca_file = "%setcd-ca.crt"\n' "$2"
        [ ! -e "$1/etcd.crt" ] || printf 'cert_file = "%setcd.crt"\nkey_file = "%setcd.key"\n' "$2" "$2"
        [ ! -e "$1/etcd-password" ] ||
            printf 'username = "%s"\npassword_file = "%setcd-password"\n' "$(cat "$1/user")" "$2"
    } >"$work/put"
    put "$1/$3" 644
}

revoke() { # WHOSE [BUT]
    for name in $(users_of "$1"); do
        [ "$name" = "${2:-}" ] || ctl user delete "$name"
    done
}

# --- verbs ---

host() { # NAME: find its folder and id
    own=$folder/hosts/$1
    [ -s "$own/id" ] || fail "there is no host $1 in $folder/hosts"
    id=$(cat "$own/id")
}

host_account() { # [new]
    same_prefix "$own/agent.toml"
    name_account "$own" "$id" "${1:-}"
    role "hostmesh-$id"
    grant "hostmesh-$id" read ""
    for key in $keys; do grant "hostmesh-$id" readwrite "$(printf '%s' "$key" | sed "s/<id>/$id/")"; done
    [ $config = no ] || grant "hostmesh-$id" readwrite config
    account "$own" "hostmesh-$id"
    settings "$own" /etc/hostmesh/ agent.toml
    say "$own is what belongs into /etc/hostmesh on that host"
}

add() {
    [ $# = 1 ] || { [ $# = 3 ] && [ "$2" = --id ]; } || fail "usage: hosts.sh add NAME --id HOSTID"
    case $1 in '' | operator | admin | *[!A-Za-z0-9._-]* | .* | -*) fail "'$1' cannot name a host" ;; esac
    own=$folder/hosts/$1
    id=${3:-}
    if [ -s "$own/id" ]; then
        [ -z "$id" ] || [ "$id" = "$(cat "$own/id")" ] ||
            fail "$1 has the id $(cat "$own/id"); first: hosts.sh remove $1"
        id=$(cat "$own/id")
    fi
    printf '%s' "$id" | grep -qxE '[0-9a-f]{32}' ||
        fail "the id of $1 is 32 hexadecimal digits; on the host: hostmesh-agent --host-id"
    for other in "$folder"/hosts/*/id; do
        [ ! -e "$other" ] || [ "$other" = "$own/id" ] || [ "$(cat "$other")" != "$id" ] ||
            fail "the id $id is in $other already"
    done
    connect
    mkdir -p "$own"
    printf '%s\n' "$id" >"$work/put"
    put "$own/id"
    host_account
}

operator() { # [new]
    same_prefix "$folder/operator/operator.toml"
    name_account "$folder/operator" operator "${1:-}"
    role hostmesh-operator
    grant hostmesh-operator readwrite ""
    account "$folder/operator" hostmesh-operator
    settings "$folder/operator" "" operator.toml
}

rotate() {
    [ $# = 1 ] || fail "usage: hosts.sh rotate NAME"
    case $1 in
    admin)
        connect
        mkdir "$work/admin"
        name_account "$work/admin" admin
        account "$work/admin" root
        rm -rf "$previous"
        mv "$admin" "$previous"
        mv "$work/admin" "$admin"
        rm -rf "$previous"
        id="admin"
        own=$admin
        ;;
    operator)
        connect
        operator new
        id=operator
        own=$folder/operator
        ;;
    *)
        host "$1"
        connect
        host_account new
        ;;
    esac
    revoke "$id" "$(cat "$own/user")"
}

remove() {
    [ $# = 1 ] || fail "usage: hosts.sh remove NAME"
    host "$1"
    connect
    revoke "$id"
    if etcdctl role get "hostmesh-$id" >/dev/null 2>&1; then ctl role delete "hostmesh-$id"; fi
    rm -rf "$own"
    say "etcd refuses $1 now; delete its subnet and history: agentctl remove $id"
}

enable() {
    connect
    operator
    # Authentication needs a user root. Nothing logs in as that one: it could not be rotated.
    printf '%s\n' "$users" | grep -qx root || ctl user add root --no-password
    role root
    ctl user grant-role root root
    name_account "$admin" admin
    account "$admin" root
    ctl auth enable
    say "etcd refuses everybody without an account now; agentctl --as-operator $folder/operator/operator.toml"
}

list() {
    connect
    printf '%-20s %-32s %-24s %s\n' NAME "HOST ID" "CERTIFICATE UNTIL" ACCOUNT
    for own in "$folder"/hosts/*/; do
        [ -s "$own/id" ] || continue
        until=none
        [ ! -e "$own/etcd.crt" ] || until=$(openssl x509 -in "$own/etcd.crt" -noout -enddate)
        known=missing
        ! printf '%s\n' "$users" | grep -qx "$(cat "$own/user")" || known=ok
        printf '%-20s %-32s %-24s %s\n' "$(basename "$own")" "$(cat "$own/id")" "${until#notAfter=}" \
            "$known$(token)"
    done
}

token() { # of agentctl token create, unless its host has joined
    [ -s "$own/token" ] || return 0
    same_prefix "$own/agent.toml"
    if etcdctl get --keys-only "$prefix/memory/$(cat "$own/id")" | grep -q .; then return 0; fi
    until=$(cat "$own/token")
    how='unused until'
    ! printf '%s\n%s\n' "$until" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" | sort | head -n 1 | grep -qx "$until" || how=expired
    printf ', token %s %s' "$how" "$until"
}

case $verb in
members | add | enable | rotate | remove | list) "$verb" "$@" ;;
*) fail "unknown verb $verb: members, add, enable, rotate, remove, list" ;;
esac
