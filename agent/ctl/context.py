"""A verb's context: its arguments, the settings, the agent's socket, and where to print."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from agent.ctl.client import AgentClient
from agent.ctl.documents import DOCUMENTS, document_text, stream_text
from agent.ctl.output import Palette, Table, lay_out, sentence
from agent.errors import NotRoot, Refused, SettingsError, UsageError
from agent.progress import Progress
from agent.settings.place import socket_at_a_glance
from agent.settings.text import printable, whole_number

if TYPE_CHECKING:
    from agent.settings import Settings

__all__ = ["Context"]

_MIN_WIDTH = 40


class Context:
    """One run of agentctl.

    Args:
        args: The parsed command line.
        environ: The process's environment.
        stdout: For the answer.
        stderr: For everything but the answer, so that pipes stay clean.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        environ: Mapping[str, str],
        stdout: TextIO,
        stderr: TextIO,
    ) -> None:
        self.args = args
        self.progress = Progress(stderr)
        self._environ = environ
        self.stdout = stdout
        self._stderr = stderr

    @cached_property
    def settings(self) -> Settings:
        """The agent's settings, with the command line's on top. Raises SettingsError."""
        return self.settings_with({})

    def settings_with(self, overrides: Mapping[str, str]) -> Settings:
        """Return the settings with ``overrides`` ("section.key" to text) on top of everything."""
        from agent.settings import load_settings, overrides_from_flags  # noqa: PLC0415 - 50 ms

        flags = overrides_from_flags(self.args.set)
        return load_settings(
            self.args.settings, self._environ, {**flags, **overrides}, self.args.as_operator
        )

    @cached_property
    def client(self) -> AgentClient:
        """The agent on this host; ``--socket`` spares reading the settings."""
        path: Path | None = self.args.socket
        return AgentClient(path or self._socket(), self.timeout_s, progress=self.progress)

    def _socket(self) -> Path:
        """Return the settings' path; the default one if they are wrong and an agent runs.

        The agent goes on with the previous settings, and its status says what is wrong.
        """
        if not (self.args.set or self.args.verb.reads_settings):
            found = socket_at_a_glance(self.args.settings, self._environ)
            if found is not None:
                return found
        try:
            return self.settings.agent.socket
        except SettingsError as error:
            from agent.settings import AgentSettings  # noqa: PLC0415 - as above

            path = AgentSettings().socket
            if not path.exists():
                raise
            for problem in error.problems:
                self.remark(f"agentctl: {problem}")
            return path

    @property
    def timeout_s(self) -> float:
        """How long the verb may wait: --timeout, else the verb's default."""
        given: float | None = self.args.timeout
        own: float = self.args.verb.timeout_s
        return own if given is None else given

    def follow_until_s(self) -> float | None:
        """Return when a verb that follows the agent ends: monotonic seconds, None without end."""
        return None if self.args.timeout is None else time.monotonic() + self.timeout_s

    @property
    def form(self) -> str:
        """Form of the answer: text, wide, json or yaml."""
        form: str = self.args.output
        return form

    @property
    def is_wide(self) -> bool:
        """Whether to show all columns, and to cut none."""
        return self.form == "wide"

    @property
    def is_document(self) -> bool:
        """Whether the answer is for programs."""
        return self.form in DOCUMENTS

    @property
    def width(self) -> int | None:
        """Cells of the terminal; None for a file or a pipe, where nothing is cut."""
        given = whole_number(self._environ.get("COLUMNS", ""), digits=4)
        if given is not None:
            return max(_MIN_WIDTH, given)
        if self.stdout.isatty():
            import shutil  # noqa: PLC0415 - only on a terminal

            return max(_MIN_WIDTH, shutil.get_terminal_size().columns)
        return None

    @cached_property
    def palette(self) -> Palette:
        """Colours on a terminal, unless NO_COLOR is set to anything (no-color.org)."""
        plain = self._environ.get("NO_COLOR") or self.is_dumb
        return Palette(colours=self.stdout.isatty() and not plain)

    @property
    def is_dumb(self) -> bool:
        """The terminal obeys no escape sequence."""
        return self._environ.get("TERM") == "dumb"

    def say(self, line: str = "") -> None:
        """Print one line of the answer; ``line`` is clean already."""
        self.progress.erase()
        print(line, file=self.stdout)

    def say_one_of_many(self, document: Mapping[str, Any]) -> None:
        """Print one document of a stream, such as that of --follow."""
        self.say(stream_text(document, self.form))

    def show(self, document: Mapping[str, Any], lines: Callable[[], Iterable[str]]) -> None:
        """Print a document: as JSON or YAML, or in ``lines``, which are clean already."""
        if self.is_document:
            self.say(document_text(document, self.form))
            return
        for line in lines():
            self.say(line)

    def show_table(self, document: Mapping[str, Any], table: Callable[[], Table]) -> None:
        """Print a document: as JSON or YAML, or as a table by --sort and --no-headers.

        The verb takes TABLE of agent.ctl.verbtable.row. Without headers stdout has rows only, for
        other programs; lines around the table go to stderr.

        Raises:
            UsageError: --sort or --no-headers with a form that has no table, or no such column.
        """
        if self.is_document and (self.args.sort or self.args.no_headers):
            raise UsageError(
                f"--sort and --no-headers are for tables, not for -o {self.form}",
                hint="leave them out, or sort with jq",
            )
        made = Table() if self.is_document else table()
        if self.args.no_headers:
            for line in (*made.warnings, *made.before, *made.after):
                self.remark(line)
            made = made._replace(warnings=(), before=(), after=(), details=())
        self.show(document, lambda: self.table_lines(made))

    def table_lines(self, table: Table) -> list[str]:
        """Return the lines of a table and around it, by -o wide, --sort and --no-headers."""
        width = None if self.is_wide else self.width
        return lay_out(
            table,
            width,
            sort=self.args.sort,
            headers=not self.args.no_headers,
            paint=self.palette.paint,
        )

    def remark(self, line: str) -> None:
        """Print a remark on stderr."""
        self.progress.erase()
        print(printable(line), file=self._stderr)

    def report(self, document: Mapping[str, Any], *, nothing: str = "nothing to do") -> int:
        """Print what a changing verb did; return 1 when something is left to do, else 0.

        Args:
            document: With lines under "done" and "todo".
            nothing: The answer when there was nothing to do.
        """
        done, todo = document.get("done") or [], document.get("todo") or []
        if self.is_document:
            self.show(document, tuple)
            return 1 if todo else 0
        for line in done:
            self.say(sentence(line))
        for line in todo:
            self.remark(f"left to do: {sentence(line)}")
        if not done and not todo:
            self.say(nothing)
        return 1 if todo else 0

    def did(self, done: str, todo: str) -> str:
        """Return how a verb with --dry-run names what it did, or would do."""
        return f"would {todo}" if self.args.dry_run else done

    def report_change(
        self,
        changed: bool,  # noqa: FBT001 - as the field
        done: Sequence[str],
        todo: Sequence[str] = (),
        **values: object,
    ) -> int:
        """Print what a verb with --dry-run changed in etcd, as :meth:`report` does.

        Args:
            changed: Something was, or would be, written.
            values: Fields of the document.
        """
        document = {
            "version": 1,
            "changed": changed,
            "dry_run": self.args.dry_run,
            **values,
            "done": list(done),
            "todo": list(todo),
        }
        return self.report(document)

    def confirm(self, question: str, *, unasked: str) -> bool:
        """Ask the operator; return whether the answer is yes.

        Args:
            question: Ends in a question mark.
            unasked: Hint for when there is no terminal.

        Raises:
            Refused: There is no terminal.
        """
        if not sys.stdin.isatty():
            raise Refused("there is no terminal to ask on, so nothing was done", hint=unasked)
        print(f"{question} [y/N] ", end="", file=self._stderr, flush=True)
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def need_root(self, what: str) -> None:
        """Raise NotRoot unless we are root."""
        if os.geteuid() != 0:
            raise NotRoot(f"only root may {what}", hint="run it with sudo")
