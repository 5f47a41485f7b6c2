"""Docs name files, sections, verbs and settings that exist; the picture is as its source."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.ctl.parser import build_parser
from agent.ctl.verbtable import GROUPS, VERBS, Verb
from agent.deploy.parser import parser as deploy_parser
from agent.model import BACKENDS
from agent.settings import KEYS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
MAP = "docs/architecture.md"
PAGES = sorted(
    str(each.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "tests/lab/README.md")
    for each in ROOT.glob(pattern)
    if each.name != "CHANGELOG.md"
)
TOPS = ("agent/", "tests/", "docs/", "deploy/", "systemd/", ".ci/", ".github/")
QUOTED = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:sudo )?agentctl ([a-z].*)$")


def text(page: str) -> str:
    return (ROOT / page).read_text()


def paths(page: str) -> Iterator[str]:
    """Files and folders of the repository that a page names."""
    content = re.sub(r"https?://\S+", "", text(page))
    for found in re.findall(
        r"(?<![\w./<-])((?:agent|tests|docs|deploy|systemd)/[\w./*-]+)", content
    ):
        yield found.rstrip(".")


def exists(name: str) -> bool:
    return "NAME" in name or bool(list(ROOT.glob(name.rstrip("/"))))


@pytest.mark.parametrize("page", [*PAGES, "docs/architecture.dot"])
def test_files_that_a_page_names_exist(page: str) -> None:
    assert not [each for each in paths(page) if not exists(each)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them, and those that it names."""
    content = page.read_text()
    return {*re.findall(r'<a id="([^"]+)"></a>', content)} | {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"(?m)^#+ (.+)$", content)
    }


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    broken = []
    for link in LINK.findall(text(page)):
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not link.startswith("http") and (
            not target.exists() or (anchor and anchor not in anchors(target))
        ):
            broken.append(link)
    assert not broken


def sections() -> list[tuple[str, str]]:
    """The sections of the map that are about a package, with the package's name."""
    found = (each.partition("\n") for each in re.split(r"(?m)^## ", text(MAP))[1:])
    return [(name, body) for name, _, body in found if (ROOT / "agent" / name).is_dir()]


@pytest.mark.parametrize(("package", "body"), sections(), ids=lambda each: each[:12].strip())
def test_modules_that_the_map_names_are_in_their_package(package: str, body: str) -> None:
    named = [
        each
        for each in QUOTED.findall(body)
        if re.fullmatch(r"[\w/]+\.py|[a-z_]+/", each) and not each.startswith(TOPS)
    ]
    own = ROOT / "agent" / package
    assert not [
        each
        for each in named
        if not (list(own.rglob(each.rstrip("/"))) or (ROOT / "agent" / each).exists())
    ]


def test_the_map_has_a_section_for_every_package() -> None:
    packages = {each.parent.name for each in (ROOT / "agent").glob("*/__init__.py")}
    assert packages == {name for name, _ in sections()}


def commands(page: str) -> Iterator[str]:
    """Command lines of agentctl in code."""
    for line in text(page).splitlines():
        spans = [line.strip()] if line.startswith("    ") else QUOTED.findall(line)
        for span in spans:
            if found := COMMAND.match(span.partition("#")[0].strip()):
                yield found[1]


def flags(verb: Verb) -> set[str]:
    every = set(build_parser(())._option_string_actions)
    return every | {each.name for each in verb.arguments if each.name.startswith("--")}


@pytest.mark.parametrize("page", PAGES)
def test_agentctl_has_the_verbs_and_options_that_a_page_names(page: str) -> None:
    unknown = []
    for command in commands(page):
        words = tuple(command.replace("[", " ").replace("]", " ").split())
        verbs = [verb for verb in VERBS if words[: len(verb.words)] == verb.words]
        if not verbs and words[0] not in GROUPS:
            unknown.append(command)
        known = {flag for verb in verbs for flag in flags(verb)}
        options = (re.match(r"--?[a-z-]+", word) for word in words)
        unknown += [command for option in options if verbs and option and option[0] not in known]
    assert not unknown


DEPLOY = re.compile(r"^(?:\$ )?hostmesh-deploy ([a-z].*)$")


@pytest.mark.parametrize("page", PAGES)
def test_hostmesh_deploy_has_the_verbs_and_options_that_a_page_names(page: str) -> None:
    found = (each.choices for each in deploy_parser()._actions)
    (verbs,) = (each for each in found if isinstance(each, dict))
    unknown = []
    for line in re.findall(r"(?m)^    (.*)$|`([^`\n]+)`", text(page)):
        command = DEPLOY.match((line[0] or line[1]).partition("#")[0].strip())
        if not command:
            continue
        verb, *words = command[1].split()
        parser = verbs.get(verb)
        known = parser._option_string_actions if parser else {}
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        if parser is None or set(options) - set(known):
            unknown.append(command[1])
    assert not unknown


SETTING = re.compile(
    rf"`((?:{'|'.join(KEYS)})\.(?!py`|sock`|toml|service|socket`|options`)[a-z0-9_]+)(?: = [^`]*)?`"
)


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_a_page_names_exist(page: str) -> None:
    known = {f"{section}.{key}" for section, keys in KEYS.items() for key in keys}
    assert not set(SETTING.findall(text(page))) - known


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    cells = re.findall(r"(?m)^\| ([^|]+) \|", text("docs/dependencies.md"))
    explained = {name.partition(" ")[0] for cell in cells for name in cell.split(", ")}
    assert {re.split("[<>=]", each)[0] for each in listed} <= explained | {"docker", "types-docker"}


UNWRAPPED = {"tests/lab/README.md"}
"""Pages that are yet to be wrapped."""


@pytest.mark.parametrize("page", ["CHANGELOG.md", *PAGES])
def test_prose_has_at_most_100_columns(page: str) -> None:
    """Rows of tables and code may be longer."""
    lines = enumerate(text(page).splitlines(), 1)
    wide = [number for number, line in lines if len(line) > 100 and line[0] not in "| <"]
    assert not wide or page in UNWRAPPED


@pytest.mark.parametrize("drawn", sorted(ROOT.glob("docs/*.dot")), ids=lambda each: each.stem)
def test_pictures_are_drawn_from_their_source(drawn: Path) -> None:
    source = hashlib.sha256(drawn.read_bytes()).hexdigest()
    assert source in drawn.with_suffix(".svg").read_text(), "run `make picture`"


def test_the_readme_lists_every_page() -> None:
    index = text("README.md").partition("## Documentation")[2]
    linked = {link.partition("#")[0] for link in LINK.findall(index)}
    pages = {page for page in PAGES if page.startswith("docs/")}
    assert pages <= linked


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_a_page_begins_with_its_answer(page: str) -> None:
    """A title, an empty line, and prose of at least two lines before anything else."""
    title, empty, *answer = text(page).splitlines()[:4]
    assert title.startswith("# ")
    assert not empty
    assert all(line and line[0] not in "#|-*" for line in answer[:1]), answer


CONDITION = re.compile(
    r"`([a-z]+(?:-[a-z0-9]+)+)`|\(([a-z]+(?:-[a-z0-9]+)+)(?: [\d./]+)?, \d+ [smhd]\)"
)
SEVERITY = re.compile(r"(?m)^\| (?:<a id=[^>]*></a>)?`([a-z0-9-]+)` \| (?:error|warning|info)")
QUOTING = ("docs/troubleshooting.md", "docs/faq.md", "docs/upgrade.md", "docs/compare.md")
NO_CONDITION = {"host-gw", "hostmesh-peers", "hostmesh-deploy"}


@pytest.mark.parametrize("page", QUOTING)
def test_conditions_that_a_page_quotes_exist(page: str) -> None:
    known = set(SEVERITY.findall(text("docs/conditions.md")))
    quoted = {one or other for one, other in CONDITION.findall(text(page))}
    assert not quoted - known - NO_CONDITION


def test_the_table_of_symptoms_leads_to_every_section() -> None:
    page = text("docs/troubleshooting.md")
    listed = re.findall(r"\[(\d+)\]\(#(\d+)-", page.partition("\n## ")[0])
    assert {int(name) for name, _ in listed} == {
        int(each) for each in re.findall(r"(?m)^## (\d+)\. ", page)
    }
    assert all(name == anchor for name, anchor in listed)


def test_help_names_every_backend() -> None:
    (init,) = (verb for verb in VERBS if verb.name == "config init")
    (backend,) = (each for each in init.arguments if each.name == "--backend")
    assert all(name in backend.help for name in BACKENDS)
