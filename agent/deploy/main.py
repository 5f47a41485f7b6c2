"""Run hostmesh-deploy. An error is one line and a hint; its class has the exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent.deploy.parser import parse
from agent.deploy.verbs import run
from agent.errors import HostmeshError, UsageError
from agent.settings.text import forgive, printable

__all__ = ["main"]

_INTERRUPTED = 130  # 128 + SIGINT, as shells do
_PIPE_BROKEN = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run hostmesh-deploy; the exit status (docs/exit-status.md)."""
    forgive(sys.stdout, sys.stderr)
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        if args.verb is None:
            print(args.help_text, file=sys.stderr)
            return UsageError.exit_code
        return run(args)
    except HostmeshError as error:
        print(f"hostmesh-deploy: {printable(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"hint: {printable(error.hint)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nhostmesh-deploy: interrupted", file=sys.stderr)
        print("hint: the same command goes on where it ended", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        return _PIPE_BROKEN
    except OSError as error:
        print(f"hostmesh-deploy: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return HostmeshError.exit_code


if __name__ == "__main__":
    sys.exit(main())
