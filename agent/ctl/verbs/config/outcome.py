"""Refuse to change a config that is not there, and print how a change of one ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent.ctl.context import Context
from agent.ctl.output import clean
from agent.ctl.verbs.config.mesh import config_document, config_sentence
from agent.errors import MeshConfigError
from agent.model import MeshConfig, first_few

if TYPE_CHECKING:
    from agent.registry.operations.config_change import ConfigChange

__all__ = ["say_change", "usable"]

_SHOWN = 10


def usable(now: MeshConfig | None) -> MeshConfig:
    """Return the config that is to be changed. Raises MeshConfigError when there is none."""
    if now is None:
        raise MeshConfigError(
            "there is no usable config in etcd to change",
            hint="agentctl config show says why; create the mesh with agentctl config init",
        )
    return now


def say_change(context: Context, change: ConfigChange) -> None:
    """Print what became of a change."""
    if change.changed and change.flannel_leaves:
        named = ", ".join(str(each.node_address) for each in change.flannel_leaves[:_SHOWN])
        context.remark(
            f"{len(change.flannel_leaves)} flannel hosts ({named}) take another subnet when"
            " flanneld is restarted there: theirs does not fit this config"
        )
    moving = [str(each.subnet) for each in change.not_moved]
    document = {
        **config_document(change.after),
        "changed": change.changed,
        "dry_run": context.args.dry_run,
        "not_moved": moving,
    }
    context.show(document, lambda: _lines(context, change))


def _lines(context: Context, change: ConfigChange) -> Iterator[str]:
    sentence = config_sentence(change.after)
    if not change.changed:
        yield f"nothing to change: {sentence}"
    else:
        yield f"{context.did('changed', 'be')}: {sentence}"
    if not change.after.previous:
        return
    left = ", ".join(map(str, change.after.previous))
    if not change.not_moved:
        yield f"No host is left in {left}. To stop using it: agentctl config set --finish"
        return
    named = first_few(
        [clean(each.host_name or each.node_address) for each in change.not_moved], _SHOWN
    )
    yield f"{left} stays in use until its hosts have moved: {named}"
    yield "Each moves when its Docker may restart: agentctl docker restart --now there."
