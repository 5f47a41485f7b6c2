"""Run agentctl. An error is one line and a hint; its class has the exit status."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import closing

from agent.ctl.context import Context
from agent.ctl.parser import build_parser, parse
from agent.errors import HostmeshError, SettingsError, UsageError
from agent.settings.text import forgive, printable

__all__ = ["main"]

_INTERRUPTED = 130  # 128 + SIGINT, as shells do
_PIPE_BROKEN = 141  # 128 + SIGPIPE
_OBJECTS = 100_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run agentctl; the result is the process's exit status (docs/exit-status.md).

    Args:
        argv: None for the program itself, whose process ends at once: finalizing the interpreter
            takes a tenth of the time of an answer.
    """
    if argv is not None:
        return _status(argv)
    status = _status(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, none at all
            stream.flush()
    os._exit(status)


def _status(argv: Sequence[str]) -> int:
    forgive(sys.stdout, sys.stderr)
    try:
        return _run(argv)
    except SettingsError as error:
        _complain(error.problems, error.hint)
        return error.exit_code
    except HostmeshError as error:
        _complain((error.message,), error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        return _PIPE_BROKEN  # the reader of the output has ended
    except OSError as error:
        _complain((f"{error.filename or 'output'}: {error.strerror or error}",), "")
        return HostmeshError.exit_code


def _run(argv: Sequence[str]) -> int:
    # The collector would walk the document of a large mesh again and again.
    gc.set_threshold(_OBJECTS)
    args = parse(argv)
    if args.verb is None:
        build_parser().print_help(sys.stderr)
        return UsageError.exit_code
    context = Context(args, os.environ, sys.stdout, sys.stderr)
    with closing(context.progress):
        status: int = args.verb.load()(context)
    if sys.stdout is not None:  # closed by the parent
        sys.stdout.flush()
    return status


def _complain(messages: Sequence[str], hint: str) -> None:
    for message in messages:
        print(f"agentctl: {printable(message)}", file=sys.stderr)
    if hint:
        print(f"hint: {printable(hint)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
