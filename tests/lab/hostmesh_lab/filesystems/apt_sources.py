"""Which Debian mirror this machine uses, read from its own apt sources.

The lab's root filesystems come from the same place as the machine's packages: nothing
else may be reachable from it, and no mirror's name belongs into a repository.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hostmesh_lab.errors import LabError

_DEBIAN_SUITES = frozenset(
    "buster bullseye bookworm trixie forky duke sid "
    "oldoldstable oldstable stable testing unstable".split()
)
_ONE_LINE = re.compile(
    r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)$"
)


@dataclass(frozen=True)
class Source:
    """One place that apt fetches from."""

    uri: str
    suite: str
    components: tuple[str, ...]


def parse_one_line(text: str) -> Iterator[Source]:
    """Sources in the format of sources.list: ``deb [options] URI suite components``."""
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#", 1)[0].strip())
        if match:
            components = tuple(match["components"].split())
            yield Source(match["uri"], match["suite"], components)


def parse_deb822(text: str) -> Iterator[Source]:
    """Sources in the format of *.sources: stanzas of fields."""
    for stanza in _stanzas(text):
        if stanza.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "deb" not in stanza.get("types", "").split():
            continue
        for uri in stanza.get("uris", "").split():
            for suite in stanza.get("suites", "").split():
                yield Source(uri, suite, tuple(stanza.get("components", "").split()))


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    last = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, last = {}, ""
        elif line[0] in " \t" and last:
            fields[last] += " " + line.strip()
        elif ":" in line:
            last, _, value = line.partition(":")
            last = last.strip().lower()
            fields[last] = value.strip()


def choose_mirror(sources: Iterable[Source]) -> str:
    """The first source that serves Debian itself: not its security archive, not a vendor's."""
    for source in sources:
        uri = source.uri.rstrip("/")
        ours = source.suite in _DEBIAN_SUITES and "main" in source.components
        if ours and "security" not in uri.rsplit("/", 1)[-1]:
            return uri
    raise LabError(
        "no Debian mirror in this machine's apt sources",
        "the lab reads /etc/apt/sources.list and /etc/apt/sources.list.d",
    )


def read_sources(apt: Path = Path("/etc/apt")) -> list[Source]:
    """Return every source of this machine, its main list first."""
    found: list[Source] = []
    folder = apt / "sources.list.d"
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in [apt / "sources.list", *names]:
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        parse = parse_deb822 if path.suffix == ".sources" else parse_one_line
        found += parse(path.read_text(errors="replace"))
    return found


def mirror(apt: Path = Path("/etc/apt")) -> str:
    """This machine's Debian mirror. Cloud images name a file of mirrors: its first is taken."""
    uri = choose_mirror(read_sources(apt))
    if not uri.startswith("mirror+file:"):
        return uri
    listed = Path(uri.removeprefix("mirror+file:").replace("//", "/"))
    try:
        lines = [line.split("#", 1)[0].split() for line in listed.read_text().splitlines()]
    except OSError as error:
        raise LabError(f"cannot read the mirror list {listed}: {error.strerror}") from error
    for words in lines:
        if words:
            return words[0].rstrip("/")
    raise LabError(f"the mirror list {listed} is empty")
