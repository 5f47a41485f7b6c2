"""``agentctl config set``: change the mesh while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.verbs.config import backend
from agent.ctl.verbs.config.mesh import (
    host_facts,
    refuse_overlap,
)
from agent.ctl.verbs.config.outcome import say_change, usable
from agent.ctl.verbtable import BACKEND_OPTIONS, CONFIG_OPTIONS, Argument
from agent.errors import MeshConfigError, UsageError
from agent.mesh.config_change import ConfigWish, wished_config
from agent.model import LEVEL, LEVEL_OF_0_1, Access, MeshConfig
from agent.model.domain import parse_names
from agent.model.family import read_address, read_network
from agent.settings.text import shown

__all__ = ["run"]

_FORMS: dict[str, tuple[Callable[[str], object], str]] = {
    "CIDR": (read_network, "a range such as 10.64.0.0/10"),
    "ADDRESS": (read_address, "an address such as 10.64.0.0"),
    "N": (int, "a whole number"),
    "open|published|closed": (Access, "an access"),
    "required|optional": ("required".__eq__, "required or optional"),
    "allow|refuse": ("allow".__eq__, "allow or refuse"),
    "DOMAIN": (parse_names, "on, off or a domain such as mesh.example.org"),
}
"""How to read a value of CONFIG_OPTIONS, by its form, and an example; others are taken as text."""


def run(context: Context) -> int:
    """Change what is named on the command line and nothing else.

    Raises:
        UsageError: Nothing is named, or it cannot be meant.
        Refused: What is in use would be outside.
        OverlapError: The new CIDR meets this host's addresses or routes.
        MeshConfigError: There is no config yet, or no mesh can be like that.
    """
    if context.args.backend:
        _refuse_beside_backend(context)
        return backend.run(context)
    wish = _wish(context)

    def wished(now: MeshConfig | None) -> MeshConfig:
        now = usable(now)
        _refuse_twisted(now, wish)
        return wished_config(now, wish)

    with direct.registry(context) as registry:
        from agent.registry.operations.config_change import (  # noqa: PLC0415 - costs 0.2 s
            change_config,
            refuse_outside,
        )
        from agent.registry.own.identity import known_host_id  # noqa: PLC0415 - the same

        if wish.cidr is not None:
            facts = host_facts(context.settings, registry.endpoints)
            view = registry.snapshot()
            bounds = replace(registry.bounds, needed=(), in_force=())
            refuse_outside(wish.cidr, bounds)
            here = known_host_id(context.settings)
            own = tuple(each.subnet for each in view.leases if each.host_id == here)
            refuse_overlap(context.settings, facts, wish.cidr, own if here else ())
            refuse_outside(wish.cidr, replace(bounds, needed=facts.needed), view)
        change = change_config(
            registry,
            wished,
            flannel_may_go=wish.flannel is False,
            dry=context.args.dry_run,
        )
    say_change(context, change)
    return 0


def _refuse_beside_backend(context: Context) -> None:
    """Raise UsageError when something else is to change together with the backend."""
    beside = [each.name for each in CONFIG_OPTIONS if getattr(context.args, each.field)]
    if set(beside) - {"--finish"}:
        raise UsageError(
            f"--backend cannot be changed together with {', '.join(beside)}",
            hint="run agentctl config set once for each",
        )


def _wish(context: Context) -> ConfigWish:
    """Return what the command line names. Raises UsageError."""
    values = {option: getattr(context.args, option.field) for option in CONFIG_OPTIONS}
    named = {option.field: _read(option, text) for option, text in values.items() if text}
    beside = [each.name for each in BACKEND_OPTIONS if getattr(context.args, each.field)]
    if beside:
        raise UsageError(f"{', '.join(beside)} needs --backend", hint="agentctl config set --help")
    if not named:
        raise UsageError("no change is named", hint="agentctl config set --help")
    wish = ConfigWish(**named)
    if wish.move and (wish.cidr is None or wish.finish):
        raise UsageError(
            "--move says how to get to another --cidr",
            hint="agentctl config set --cidr CIDR --move",
        )
    if wish.level is not None and not LEVEL_OF_0_1 <= wish.level <= LEVEL:
        raise UsageError(f"--level {wish.level} is not from 1 to {LEVEL}, which this version reads")
    return wish


def _read(option: Argument, text: Any) -> Any:  # noqa: ANN401 - each field has a type of its own
    if option.form not in _FORMS:
        return text
    convert, example = _FORMS[option.form]
    try:
        return convert(text)
    except ValueError:
        raise UsageError(f"{option.name} {shown(text)} is not {example}") from None


def _refuse_twisted(now: MeshConfig, wish: ConfigWish) -> None:
    """Bounds that the operator chose do not fit another range by themselves."""
    after = wished_config(now, wish)
    for option, bound in (("--subnet-min", after.subnet_min), ("--subnet-max", after.subnet_max)):
        if bound not in after.cidr:
            raise MeshConfigError(
                f"{option} is {bound} and that is outside {after.cidr}",
                hint=f"name {option} as well",
            )
