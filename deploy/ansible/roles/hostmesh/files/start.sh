#!/bin/sh
# Start the agent, or restart it if a file that it reads when it starts is newer than its process.
# Routes, rules and the lease stay meanwhile. READY means that the host is a member: not waited for.
set -eu
unit=hostmesh-agent.service
pid=$(systemctl show --property=MainPID --value $unit)
begun_us=$(systemctl show --property=ExecMainStartTimestampMonotonic --value $unit)
read -r uptime _ </proc/uptime
begun=$(echo "$(date +%s.%N) $uptime $begun_us" | awk '{ printf "%.2f", $1 - $2 + $3 / 1e6 }')
for file in agent.toml etcd-ca.crt etcd-password; do
    [ -e "/etc/hostmesh/$file" ] || continue
    written=$(stat -c %.Y "/etc/hostmesh/$file")
    if [ "$pid" = 0 ] || [ "$(echo "$written $begun" | awk '{ print $1 > $2 }')" = 1 ]; then
        systemctl --no-block restart $unit
        echo started
        exit 0
    fi
done
