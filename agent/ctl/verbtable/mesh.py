"""Verbs that show or change what all hosts share: the config, reservations, records of hosts."""

from __future__ import annotations

from agent.ctl.verbtable.row import DRY_RUN, HOST, RESTART_S, TABLE, Argument, Verb

__all__ = ["BACKEND_OPTIONS", "CONFIG_OPTIONS", "MESH"]

_ACCESS = Argument(
    "--access", "which user-defined networks the mesh reaches", "open|published|closed"
)
_NAMES = Argument(
    "--names", "names of containers and hosts: on (hostmesh.internal), off, or a domain", "DOMAIN"
)

CONFIG_OPTIONS = (
    Argument("--cidr", "range of the whole mesh", "CIDR"),
    Argument("--subnet-len", "prefix length of each new subnet", "N"),
    Argument("--subnet-min", "the first subnet for new leases", "ADDRESS"),
    Argument("--subnet-max", "the last subnet for new leases", "ADDRESS"),
    _ACCESS,
    Argument("--level", "newest record format to publish, once every host can read it", "N"),
    Argument("--owners", "whether a lease needs the owner record of its host", "required|optional"),
    Argument("--flannel", "whether leases of flannel hosts count", "allow|refuse"),
    Argument("--etcd-containers", "whether containers may reach etcd", "allow|closed"),
    Argument("--networks", "whether a label without a record counts", "any|declared"),
    _NAMES,
    Argument("--move", "keep the old CIDR in use until its hosts have moved"),
    Argument("--finish", "end a move or, with --backend, its change: give the previous one up"),
)
"""Options of ``config set``, each a field of :class:`agent.mesh.config_change.ConfigWish` of that
name; agent.ctl.verbs.config.change converts the value by its form."""

BACKEND_OPTIONS = (
    Argument("--backend-options", "options of that backend, such as VNI=7,Port=4789", "OPTIONS"),
    Argument("--prepare", "with --backend, only this step: every host accepts it, too"),
    Argument("--switch", "with --backend, only this step: every host sends by it"),
    Argument("--force", "with --backend: go on; hosts that cannot follow are cut off"),
)
"""Options that need --backend."""

MESH = (
    Verb(
        "config init",
        "create the mesh",
        "config.mesh:init",
        (
            Argument("--cidr", "range of the whole mesh; without it a range is proposed", "CIDR"),
            Argument("--subnet-len", "prefix length of each subnet (16)", "N"),
            Argument("--backend", "how packets travel: host-gw, vxlan, wireguard", "NAME"),
            _ACCESS,
            _NAMES._replace(help=f"{_NAMES.help} (on)"),
            Argument("--yes", "create the proposed mesh without asking"),
        ),
        examples=(
            "agentctl config init",
            "agentctl config init --cidr 10.64.0.0/10 --backend wireguard",
        ),
    ),
    Verb(
        "config show",
        "show the mesh's config as it is in etcd",
        "config.mesh:show",
        examples=("agentctl config show", "agentctl config show -o yaml"),
    ),
    Verb(
        "config set",
        "change the mesh while it runs",
        "config.change",
        (
            *CONFIG_OPTIONS,
            Argument("--backend", "how packets travel: change it in three steps, waiting", "NAME"),
            *BACKEND_OPTIONS,
            DRY_RUN,
        ),
        RESTART_S,
        examples=(
            "agentctl config set --access open --dry-run",
            "agentctl config set --backend vxlan --backend-options VNI=7",
            "agentctl config set --cidr 10.32.0.0/12 --move",
        ),
    ),
    Verb(
        "reserve",
        "keep a subnet for a host, or list the reservations",
        "reserve",
        (
            Argument("[HOST]", HOST),
            Argument("[SUBNET]", "the subnet to keep for it"),
            Argument("--delete", "delete this reservation", "SUBNET"),
            DRY_RUN,
            *TABLE,
        ),
        examples=(
            "agentctl reserve",
            "agentctl reserve host2 10.70.0.0/16",
            "agentctl reserve --delete 10.70.0.0/16",
        ),
    ),
    Verb(
        "remove",
        "delete another host's subnet and history from etcd",
        "reserve:remove",
        (Argument("HOST", HOST), Argument("--force", "even if it is alive"), DRY_RUN),
        note="Changes nothing on that host. For this host: leave returns the subnet and undoes"
        " Hostmesh's changes; cleanup undoes them and keeps the subnet.",
        examples=("agentctl remove host2 --dry-run", "agentctl remove host2"),
    ),
    Verb(
        "etcd accept",
        "accept etcd's data after an alarm",
        "actions:accept",
        note="The agent has stopped deleting because etcd looks like another cluster or an old"
        " backup. Look at etcd first.",
        examples=("agentctl etcd accept",),
    ),
)
