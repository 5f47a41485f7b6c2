"""``agentctl resolve``: ask this host's name servers as a container would, and say why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import clean
from agent.ctl.path.ends import LocalHost
from agent.ctl.verbs.names import TARGET
from agent.dns.client import Answer, ask
from agent.dns.visibility import HOST, Asker, asker_at
from agent.errors import CannotTell
from agent.model import Access, HostId
from agent.model.family import Address, read_address, read_network
from agent.model.names import NAME_SERVERS, LocalNames, LocalNetwork, NamedAddress, NameKind

__all__ = ["explained", "lines", "run"]

_VERSION = 1
_TIMEOUT_S = 5.0


def run(context: Context) -> int:
    """Print the answer and what is behind it; return 1 where there is no address.

    Raises:
        CannotTell: No server answers.
        UsageError: No such container runs on this host.
    """
    names = direct.ask(context, TARGET)
    container = getattr(context.args, "from")  # a word of Python's
    asker = LocalHost(context).end(container).address if container else None
    with context.progress.waiting_for("this host's name servers", _TIMEOUT_S * len(NAME_SERVERS)):
        answers, problems = _ask_all(_full_name(context.args.name, names["domain"]), asker)
    if not answers:
        raise problems[0]
    document = {
        "version": _VERSION,
        "name": answers[0].name,
        "asker": str(asker) if asker else None,
        "answers": [
            {
                "server": str(each.server),
                "status": each.status,
                "addresses": list(each.addresses),
                "ttl_s": each.ttl_s,
                "took_ms": round(each.took_s * 1000, 1),
            }
            for each in answers
        ],
        "problems": [each.message for each in problems],
        "candidates": list(explained(names, answers[0].name, asker)),
    }
    context.show(document, lambda: lines(document))
    return 0 if any(each.addresses for each in answers) else 1


def _full_name(name: str, domain: str) -> str:
    """Return the name that a container's resolver ends up with: short ones are searched."""
    name = name.lower().removesuffix(".")
    below = not domain or name == domain or name.endswith(f".{domain}")
    return name if below or name.count(".") > 1 else f"{name}.{domain}"


def _ask_all(name: str, asker: Address | None) -> tuple[list[Answer], list[CannotTell]]:
    answers: list[Answer] = []
    problems: list[CannotTell] = []
    for server in NAME_SERVERS:
        try:
            answers.append(ask(server, name, asker=asker, timeout_s=_TIMEOUT_S))
        except CannotTell as error:
            problems.append(error)
    return answers, problems


def explained(
    document: Mapping[str, Any], name: str, asker: Address | None
) -> Iterator[dict[str, Any]]:
    """Yield every address that has the name, and whether the asker sees it by which rule."""
    text = name.removesuffix(f".{document['domain']}")
    here = HostId(document["host_id"] or "")
    seeing = HOST if asker is None else asker_at(_local(document), asker)
    for each in document["names"]:
        if each["name"] != text:
            continue
        kind = NameKind(each["kind"])
        for place in each["addresses"]:
            why = _why(each, place, seeing, here, kind)
            yield {
                "address": place["address"],
                "kind": kind,
                "host": place["host"],
                "network": place["mesh_network"] or place["network"],
                "seen": not why,
                "why": why or None,
                "healthy": place["healthy"],
            }


def _why(
    name: Mapping[str, Any], place: Mapping[str, Any], asker: Asker, here: HostId, kind: NameKind
) -> str:
    """Return why the asker does not get an address, "" if it does."""
    if name["shadowed_by"]:
        return f"the {name['shadowed_by']}'s name of the same spelling comes first"
    address = NamedAddress(
        address=read_address(place["address"]),
        network=place["network"] or "",
        mesh_network=place["mesh_network"] or "",
        access=Access(place["access"]),
    )
    publisher = HostId(place["host_id"])
    if asker.sees(publisher, here, address, kind):
        return ""
    network = place["mesh_network"] or place["network"]
    if publisher == here:
        return f"Docker keeps network {network} of this host from the asker's"
    if address.access is Access.CLOSED:
        return f"network {network} is closed to other networks"
    if not asker.networks:
        return "the asker is in no network of this host's Docker"
    named = ", ".join(each.name for each in asker.networks)
    return f"the asker's network ({named}) is closed or internal"


def _local(document: Mapping[str, Any]) -> LocalNames:
    """Return the facts of this host that say which networks an asker is in."""
    return LocalNames(
        domain=document["domain"],
        host_id=HostId(document["host_id"] or ""),
        boot_id="",
        networks=tuple(
            LocalNetwork(
                name=each["name"],
                bridge="",
                subnets=tuple(map(read_network, each["subnets"])),
                mesh_network=each["mesh_network"] or "",
                access=Access(each["access"]),
                internal=each["internal"],
            )
            for each in document["networks"]
        ),
        askers={
            read_address(address): tuple(names) for address, names in document["askers"].items()
        },
    )


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Lay out the answers, then the reasons."""
    by = f", asked by {document['asker']}" if document["asker"] else ", asked by this host"
    yield f"{clean(document['name'])}{by}"
    for each in document["answers"]:
        found = ", ".join(each["addresses"]) or "no address"
        ttl = f", TTL {each['ttl_s']} s" if each["ttl_s"] is not None else ""
        yield f"  {each['server']}: {each['status']}, {found}{ttl} ({each['took_ms']} ms)"
    for problem in document["problems"]:
        yield f"  {problem}"
    for each in document["candidates"]:
        network = f" in network {clean(each['network'])}" if each["network"] else ""
        state = "seen" if each["seen"] else f"hidden: {each['why']}"
        health = "" if each["healthy"] else ", not healthy"
        where = f"{each['kind']}'s name, {each['address']} on {clean(each['host'])}{network}"
        yield f"  {where}: {state}{health}"
    if not document["candidates"]:
        yield "  no container or host of the mesh has this name; other names are forwarded"
