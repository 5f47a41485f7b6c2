"""``agentctl ui``: show the agent's web page to a browser of this machine, until Ctrl-C."""

from __future__ import annotations

import os
import threading
import time

from agent.ctl.context import Context
from agent.errors import SettingsError, UsageError
from agent.settings.text import shown, whole_number

__all__ = ["run"]


def run(context: Context) -> int:
    """Print where the page is; serve it unless the agent does so on ``ui.listen``."""
    port = _port(context.args.port)
    context.client.get_text("/ui")  # it answers, it has the page, and this user may read it
    served = None if port else _served(context)
    if served is not None:
        _show(context, served)
        return 0
    from agent.ctl.web.proxy import PageProxy  # noqa: PLC0415 - only for that

    proxy = PageProxy(context.client.path, port)
    proxy.start()
    try:
        _show(context, proxy.link)
        context.remark("the link opens once; the page is there until Ctrl-C")
        context.remark(
            f"from another machine: ssh -t -L {proxy.port}:127.0.0.1:{proxy.port} root@THIS-HOST"
            f" agentctl ui --port {proxy.port}"
        )
        context.stdout.flush()
        _wait(context)
    finally:
        proxy.stop()
    return 0


def _port(text: str | None) -> int:
    port = 0 if text is None else whole_number(text, digits=5)
    if port is None or port >= 1 << 16:
        raise UsageError(f"{shown(text)} is no port", hint="--port 9561")
    return port


def _served(context: Context) -> str | None:
    """Return the page's address where the agent serves it itself."""
    try:
        listen = context.settings.ui.listen
    except SettingsError:  # status reports it; the control socket answers nevertheless
        return None
    return f"http://{listen.replace('0.0.0.0', '127.0.0.1')}/ui" if listen else None  # noqa: S104 # read, not bound


def _show(context: Context, link: str) -> None:
    context.say(link)
    if not context.args.open:
        return
    if os.geteuid() == 0:
        context.remark("root starts no browser: open the link as your own user")
        return
    import webbrowser  # noqa: PLC0415 - only for that

    if not webbrowser.open(link):
        context.remark("no browser was found: open the link yourself")


def _wait(context: Context) -> None:
    until_s = context.follow_until_s()
    try:
        threading.Event().wait(None if until_s is None else max(0.0, until_s - time.monotonic()))
    except KeyboardInterrupt:
        context.remark("the page is closed")
