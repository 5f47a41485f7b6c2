#!/bin/sh
# Print what `hostmesh-deploy` must know of a host, a line for each fact: NAME VALUE. Changes nothing.
PATH=$PATH:/usr/sbin:/sbin
one() { printf '%s %s\n' "$1" "$2"; }
has() { command -v "$1" >/dev/null 2>&1; }

one uid "$(id -u)"
# shellcheck disable=SC1091
one system "$(. /etc/os-release 2>/dev/null && printf '%s %s %s' "$ID" "${VERSION_ID:-testing}" "${VERSION_CODENAME:-unknown}")"
one architecture "$(dpkg --print-architecture 2>/dev/null || uname -m)"
one hostname "$(uname -n)"
# Clones share a machine-id. Only its hash leaves the host.
one machine "$(sha256sum </etc/machine-id 2>/dev/null | cut -c 1-16)"
if [ -d /run/systemd/system ]; then one init systemd; else one init other; fi
one python "$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
one free_mb "$(df -Pk /usr /var /run 2>/dev/null | awk 'NR > 1 { print int($4 / 1024) }' | sort -n | head -n 1)"

if has docker; then
    # Without a server it prints an empty line.
    engine=$(timeout 10 docker version --format '{{.Server.Version}}' 2>/dev/null | grep .)
    one docker "${engine:-stopped}"
    one containers "$(timeout 10 docker ps --quiet 2>/dev/null | grep -c .)"
    one swarm "$(timeout 10 docker info --format '{{.Swarm.LocalNodeState}}' 2>/dev/null)"
else
    one docker missing
fi

one source "$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p' | head -n 1)"
ip -o -4 address show 2>/dev/null | awk '$2 !~ /^(docker0|br-|veth|hostmesh|hm)/ { print "address", $4 }'
# Routes of the kernel are those of the addresses; 140 is Hostmesh's own protocol.
ip -4 route show 2>/dev/null |
    awk '$1 ~ /^[0-9]/ && !/proto (kernel|140|hostmesh)/ { print "route", $1 }'
ss -Hltn 2>/dev/null | awk '{ sub(/.*:/, "", $4); print "listens", $4 }' | sort -u

if has dpkg-query; then
    one installed "$(dpkg-query -W -f '${db:Status-Status} ${Version}' hostmesh 2>/dev/null | sed -n 's/^installed //p')"
fi
if [ -e /opt/hostmesh/venv ]; then one other_installation /opt/hostmesh; fi
one etcd_unit "$(systemctl is-active hostmesh-etcd.service 2>/dev/null)"
sed -n 's/^ETCD_INITIAL_CLUSTER=/etcd_cluster /p' /etc/hostmesh-etcd/etcd.env 2>/dev/null
if has agentctl; then
    one restart_pending "$(timeout 10 agentctl status -o json 2>/dev/null | grep -c '"name": *"docker-restart-pending"')"
fi
# No setting has a secret in it; those are in files that settings name.
if [ -s /etc/hostmesh/agent.toml ]; then
    one settings "$(head -c 65536 /etc/hostmesh/agent.toml | base64 | tr -d '\n')"
fi
one now "$(date +%s)"
