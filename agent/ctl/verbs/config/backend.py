"""``agentctl config set --backend``: change how packets travel, step by step, while they do."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import clean
from agent.ctl.polling import rounds
from agent.ctl.verbs.config.outcome import say_change, usable
from agent.errors import HostmeshError, Refused, UsageError
from agent.mesh.backend_change import Step, absent, awaited, live, read_options, step_config, unable
from agent.mesh.backends import backend_by_name, backend_names, refuse_options
from agent.mesh.peer_rules import unusable_data
from agent.model import BackendData, Lease, MeshConfig, first_few
from agent.settings.text import shown

if TYPE_CHECKING:
    from agent.registry.operations.config_change import ConfigChange
    from agent.registry.registry import Registry

__all__ = ["run"]

_PAUSE_S = 0.5
_SHOWN = 10
_DONE = {
    Step.PREPARE: "every host accepts packets by {}, too",
    Step.SWITCH: "every host sends by {}",
    Step.FINISH: "every host has given up the previous backend",
}


def run(context: Context) -> int:
    """Do the steps that are named, or all of them and wait after each.

    Raises:
        UsageError: The backend or an option is unknown, or another change is asked for, too.
        MeshConfigError: There is no config, or another change of the backend is under way.
        Refused: A live host cannot receive by the backend, and --force is not given.
        HostmeshError: Hosts did not follow within --timeout. The same command goes on.
    """
    args = context.args
    backend, options = _wish(context)
    named = [each for each in Step if getattr(args, each)]
    if options is not None and named and Step.PREPARE not in named:
        steps = " and ".join(f"--{each}" for each in named)
        raise UsageError(
            f"--backend-options change nothing with {steps}: hosts read them in the step prepare",
            hint=f"agentctl config set --backend {backend} --prepare --backend-options"
            f" {shown(args.backend_options)}",
        )
    with direct.registry(context) as registry:
        for step in named or Step:
            if step is Step.FINISH:
                _name_absent(context, registry, backend)
            change = _step(context, registry, backend, step, options)
            options = None
            if args.dry_run:
                break
            if not named:
                _wait(context, registry, backend, step)
    say_change(context, change)
    return 0


def _wish(context: Context) -> tuple[str, BackendData | None]:
    backend = context.args.backend
    if backend_by_name(backend) is None:
        raise UsageError(
            f"there is no backend {shown(backend)}", hint=f"there are {', '.join(backend_names())}"
        )
    try:
        return backend, read_options(context.args.backend_options)
    except ValueError as error:
        raise UsageError(f"--backend-options: {error}") from None


def _step(
    context: Context,
    registry: Registry,
    backend: str,
    step: Step,
    options: BackendData | None,
) -> ConfigChange:
    """Write the config of one step, if the hosts are ready for it."""
    from agent.registry.operations.config_change import change_config  # noqa: PLC0415 - 0.2 s

    def wished(now: MeshConfig | None) -> MeshConfig:
        after = step_config(usable(now), backend, step, options)
        refuse_options(after)
        if not context.args.force:
            _refuse_unready(registry, after, backend, step)
        return after

    return change_config(registry, wished, dry=context.args.dry_run)


def _refuse_unready(registry: Registry, after: MeshConfig, backend: str, step: Step) -> None:
    """Raise Refused with the names of live hosts that ``step`` would cut off."""
    view = registry.snapshot()
    if step is Step.PREPARE:
        behind, what = unable(view, backend), "flannel hosts keep their backend"
    elif step is Step.SWITCH:
        behind, what = awaited(view, backend, Step.PREPARE), f"not yet receiving by {backend}"
    else:
        behind, what = awaited(view, backend, Step.SWITCH), f"not yet sending by {backend}"
    if step is not Step.PREPARE and not behind:
        behind = unusable_data(live(view), after)
        what = f"the data that they publish for {backend} is not usable"
    if behind:
        raise Refused(
            f"{what}: {_names(behind)}",
            hint="wait for them, upgrade or remove them; --force goes on and cuts them off",
        )


def _name_absent(context: Context, registry: Registry, backend: str) -> None:
    """Name hosts that are not waited for: their containers may run, and send by the other."""
    if behind := absent(registry.snapshot(), backend):
        context.remark(
            f"{Step.FINISH}: no heartbeat, cut off until the agent runs: {_names(behind)}"
        )


def _wait(context: Context, registry: Registry, backend: str, step: Step) -> None:
    """Wait until every live host has followed. Hosts that never will are passed over."""
    with context.progress.waiting_for(f"every host: {step}", context.timeout_s) as now_for:
        for _ in rounds(_PAUSE_S, time.monotonic() + context.timeout_s):
            behind = _following(context, registry, backend, step)
            if not behind:
                context.remark(f"{step}: {_DONE[step].format(backend)}")
                return
            now_for(f"{_names(behind)}: {step}")
    raise HostmeshError(
        f"{step}: {_names(behind)} did not follow within {context.timeout_s:g} s",
        hint="see agentctl status there; then run the same command again, it goes on",
    )


def _following(context: Context, registry: Registry, backend: str, step: Step) -> tuple[Lease, ...]:
    view = registry.snapshot()
    cut_off = unable(view, backend) if context.args.force else ()
    return tuple(each for each in awaited(view, backend, step) if each not in cut_off)


def _names(leases: Iterable[Lease]) -> str:
    return first_few([clean(each.host_name or each.node_address) for each in leases], _SHOWN)
