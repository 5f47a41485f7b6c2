"""``agentctl config init`` and ``show``: create the mesh, show its config."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import clean, flow
from agent.errors import MeshConfigError, OverlapError, UsageError
from agent.mesh.overlap import host_overlaps
from agent.mesh.ranges import count_subnets, propose_cidr
from agent.model import LEVEL, Access, DockerFacts, DockerNetwork, HostFacts, MeshConfig
from agent.model.domain import parse_names
from agent.model.family import Network, family_of
from agent.settings import Settings
from agent.settings.text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "config_document",
    "config_sentence",
    "host_facts",
    "init",
    "refuse_overlap",
    "show",
]

_DOCKER0 = "docker0"
_FLAGS = {
    "cidr": "mesh.cidr",
    "subnet_len": "mesh.subnet_len",
    "backend": "mesh.backend",
    "access": "mesh.access",
}


def init(context: Context) -> int:
    """Create the mesh's config; without --cidr and [mesh] propose one and write nothing.

    Raises:
        OverlapError: The CIDR meets this host's addresses or routes; nothing was written.
        MeshConfigError: There is another config already, or nothing is left to propose.
        SettingsError: The flags describe an impossible mesh.
    """
    settings = context.settings
    facts = host_facts(settings, settings.etcd.endpoints)
    flags = {key: getattr(context.args, name) for name, key in _FLAGS.items()}
    overrides = {key: text for key, text in flags.items() if text is not None}
    propose = "mesh.cidr" not in overrides and settings.mesh.cidr is None
    if propose:
        overrides["mesh.cidr"] = str(_proposal(facts, _docker0_of(facts, settings)))
    config = context.settings_with(overrides).mesh.config()
    if config is None:  # it has a CIDR by now
        raise MeshConfigError("no CIDR is given", hint="agentctl config init --cidr CIDR")
    config = _named(context, config)
    if propose and not context.args.yes:
        return _show_proposal(context, config)
    with direct.registry(context) as registry:
        from agent.registry.operations.config_change import refuse_outside  # noqa: PLC0415 - costs 0.2 s

        facts = host_facts(settings, registry.endpoints)
        bounds = replace(registry.bounds, needed=(), in_force=())
        refuse_outside(config.cidr, bounds)
        refuse_overlap(settings, facts, config.cidr)
        bounds = replace(bounds, needed=facts.needed)
        refuse_outside(config.cidr, bounds, registry.snapshot())
        stored = registry.create_config(config)
    key = f"{settings.etcd.prefix}/config"
    kept = ["level", "owners", "flannel", "etcd_closed", "mod_revision"]
    kept += [] if context.args.names else ["domain"]
    same = {name: getattr(stored, name) for name in kept}
    if replace(stored, backend_options=None) != replace(config, **same):
        raise MeshConfigError(
            f"{key} is in etcd already and differs: {config_sentence(stored)}; nothing was written",
            hint="agentctl config show; or name another mesh with etcd.prefix",
        )
    _say(context, stored, f"{key} is in etcd: {config_sentence(stored)}")
    return 0


def _named(context: Context, config: MeshConfig) -> MeshConfig:
    """Return the config with the domain of names that --names gives; a new mesh has names."""
    text = context.args.names or "on"
    try:
        return replace(config, domain=parse_names(text))
    except ValueError as error:
        raise UsageError(f"--names {shown(text)}: {error}", hint="--names on, or off") from None


def show(context: Context) -> int:
    """Print the config as etcd has it now.

    Raises:
        MeshConfigError: There is none, or it cannot be used.
    """
    settings = context.settings
    with direct.registry(context) as registry:
        view = registry.snapshot()
    if view.config is None:
        key = f"{settings.etcd.prefix}/config"
        if view.config_problem:
            raise MeshConfigError(
                f"{key} cannot be used: {view.config_problem}",
                hint=view.config_problem.hint
                or "correct it with etcdctl; every agent holds what it has until then",
            )
        raise MeshConfigError(f"there is no {key} in etcd", hint="agentctl config init")
    _say(context, view.config, config_sentence(view.config))
    return 0


def _say(context: Context, config: MeshConfig, sentence: str) -> None:
    context.show(config_document(config), lambda: flow(sentence, context.width, rest=2))


def _docker0_of(facts: HostFacts, settings: Settings) -> DockerFacts:
    """Return Docker's facts by the host's links: docker0's range, which is to be renumbered.

    Not when the settings leave Docker alone: then docker0 stays where it is.
    """
    unknown = DockerFacts(reachable=False, problem="not asked")
    if not settings.docker.manage:
        return unknown
    for link in facts.links:
        if link.name == _DOCKER0 and link.kind == "bridge" and link.addresses:
            network = DockerNetwork(
                id="",
                name="bridge",
                bridge=_DOCKER0,
                subnet=link.addresses[0].network,
                default=True,
            )
            return DockerFacts(reachable=True, bridge=network, networks=(network,))
    return unknown


def _occupied(facts: HostFacts, docker: DockerFacts) -> Iterator[Network]:
    """Yield every range this host can see, except docker0's, the agent's and the default route."""
    leaving = docker.bridge.subnet if docker.bridge else None
    for link in facts.links:
        for address in () if link.own else link.addresses:
            if address.network != leaving:
                yield address.network
    for route in facts.foreign_routes:
        if route.destination.prefixlen and route.destination != leaving:
            yield route.destination
    for each in facts.needed:
        yield family_of(each.address).host(each.address)


def _proposal(facts: HostFacts, docker: DockerFacts) -> Network:
    found = propose_cidr(tuple(_occupied(facts, docker)))
    if found is None:
        raise MeshConfigError(
            "no private range is free on this host, not even a /16",
            hint="agentctl config init --cidr CIDR with a range that is yours",
        )
    return found


def host_facts(settings: Settings, endpoints: tuple[str, ...]) -> HostFacts:
    """Read this host's facts, and the addresses that it needs beside the mesh."""
    from agent.daemon.membership.etcd_endpoint import with_needed  # noqa: PLC0415 - costs 0.2 s
    from agent.kernel import facts  # noqa: PLC0415 - the same

    return with_needed(facts.read_host_facts(settings.routes.protocol), endpoints)


def refuse_overlap(
    settings: Settings, facts: HostFacts, cidr: Network, own: tuple[Network, ...] = ()
) -> None:
    """Raise OverlapError when ``cidr`` overlaps something on this host but its ``own`` subnets."""
    docker = _docker0_of(facts, settings)
    overlaps = host_overlaps(facts, cidr, docker, own)
    if overlaps:
        free = propose_cidr(tuple(_occupied(facts, docker)), prefixlen=max(cidr.prefixlen, 8))
        raise OverlapError(
            f"{cidr} overlaps {', '.join(overlaps)} of this host; nothing was written",
            hint=f"{free} overlaps nothing here" if free else "choose another CIDR",
        )


def _show_proposal(context: Context, config: MeshConfig) -> int:
    command = f"agentctl config init --cidr {config.cidr} --subnet-len {config.subnet_len}"
    text = (
        *flow(f"proposed: {config_sentence(config)}", context.width, rest=2),
        "It overlaps nothing that this host sees. Other hosts may see more: each one",
        "checks before it joins. Nothing was written. To create the mesh:",
        f"  {command}",
    )
    context.show({**config_document(config), "created": False}, lambda: text)
    return 0


def config_sentence(config: MeshConfig) -> str:
    """Return a config as a sentence, clean."""
    count = 1 << (config.subnet_len - config.cidr.prefixlen)
    bounds = ""
    usual = config.access is Access.PUBLISHED
    access = "" if usual else f", user-defined networks {config.access}"
    if count_subnets(config) != count:
        bounds = f" from {config.subnet_min} to {config.subnet_max}"
    level = f", level {config.level}" if config.level < LEVEL else ""
    owners = ", owner records required" if config.owners else ""
    flannel = ", flannel hosts refused" if not config.flannel else ""
    declared = ", declared networks only" if config.declared_networks else ""
    names = f", names under {config.domain}" if config.domain else ""
    moving = f", moving from {', '.join(map(str, config.previous))}" if config.previous else ""
    other = f" ({clean(config.accepted.name)} is accepted, too)" if config.accepted else ""
    return (
        f"{config.cidr}, a /{config.subnet_len} for each of up to {count} hosts{bounds},"
        f" {clean(config.backend)}{other}{access}{level}{owners}{flannel}{declared}{names}"
        f"{moving}"
    )


def config_document(config: MeshConfig) -> Mapping[str, Any]:
    """Return a config for a document."""
    return {
        "version": 1,
        "cidr": str(config.cidr),
        "subnet_len": config.subnet_len,
        "subnet_min": str(config.subnet_min),
        "subnet_max": str(config.subnet_max),
        "backend": config.backend,
        "backend_options": config.backend_options.fields if config.backend_options else None,
        "accepted_backend": config.accepted.name if config.accepted else None,
        "previous": [str(each) for each in config.previous],
        "access": config.access,
        "level": config.level,
        "owners": config.owners,
        "flannel": config.flannel,
        "etcd_containers": "closed" if config.etcd_closed else "allow",
        "networks": "declared" if config.declared_networks else "any",
        "domain": config.domain,
        "mod_revision": config.mod_revision,
    }
