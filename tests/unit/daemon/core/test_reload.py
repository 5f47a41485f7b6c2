"""Settings read again: refused whole, in force at once, or waiting for a restart."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.daemon.core.reload import LIVE, compare, outcome, reload
from agent.daemon.state.agent_state import AgentState, StateCell
from agent.daemon.state.events import ConditionsFound, Event, SettingsRead
from agent.daemon.state.mesh_state import MeshState
from agent.errors import SettingsError
from agent.model import Condition, HostId
from agent.settings import KEYS, SECTIONS, Settings, load_settings

pytestmark = pytest.mark.unit

FIRST = '[etcd]\nendpoints = ["http://192.0.2.1:2379"]\n[log]\nlevel = "info"\n'


def loader(path: Path) -> Callable[[], Settings]:
    return lambda: load_settings(path, {}, {})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "agent.toml"
    made.write_text(FIRST)
    return made


class Agent:
    """A running agent: the settings in use, and those that its parts got."""

    def __init__(self, path: Path) -> None:
        self.conditions: tuple[Condition, ...] = ()
        self.adopted: list[Settings] = []
        self.load = loader(path)
        self.cell = StateCell(
            AgentState(mesh=MeshState(host_id=HostId("a" * 32)), settings=self.load())
        )

    @property
    def settings(self) -> Settings:
        return self.cell.now.settings

    def apply(self, event: Event) -> None:
        if isinstance(event, SettingsRead):
            self.adopted.append(event.settings)
            self.cell.now = dataclasses.replace(self.cell.now, settings=event.settings)
        elif isinstance(event, ConditionsFound):
            self.conditions = event.conditions

    def reload(self) -> None:
        reload(self.load, self.cell, self.apply)

    def active(self) -> dict[str, str]:
        return {each.name: each.cause for each in self.conditions}


def test_a_wrong_file_is_refused_whole(path: Path) -> None:
    agent = Agent(path)
    before = agent.settings
    path.write_text('[log]\nlevel = "debug"\n[routes]\nresync_s = -1\nprotocl = 7\n')
    with pytest.raises(SettingsError) as caught:
        agent.reload()
    assert len(caught.value.problems) == 2
    assert agent.settings is before
    assert agent.adopted == []
    assert list(agent.active()) == ["settings-refused"]
    assert "resync_s" in agent.active()["settings-refused"]
    path.write_text(FIRST)
    agent.reload()
    assert agent.active() == {}


def test_live_settings_change_and_the_rest_waits(path: Path) -> None:
    agent = Agent(path)
    path.write_text(
        '[etcd]\nendpoints = ["http://192.0.2.9:2379"]\n[log]\nlevel = "debug"\n'
        "[docker]\nreplace = true\n[routes]\nprotocol = 141\nresync_s = 30\n"
        '[mesh]\ncidr = "10.64.0.0/10"\n'
    )
    agent.reload()
    now = agent.settings
    assert (now.log.level, now.docker.replace, now.routes.resync_s) == ("debug", True, 30.0)
    assert now.mesh.config() is not None
    assert agent.adopted == [now]
    assert now.routes.protocol == 140
    assert now.etcd.endpoints == ("http://192.0.2.1:2379",)
    assert "etcd.endpoints, routes.protocol changed" in agent.active()["settings-need-restart"]
    path.write_text(FIRST)
    agent.reload()
    assert agent.active() == {}
    assert agent.settings.log.level == "info"


def test_equal_settings_cause_no_event(path: Path) -> None:
    agent = Agent(path)
    agent.reload()
    assert agent.adopted == []
    assert outcome(compare(agent.settings, agent.settings)) == {
        "version": 1,
        "done": [],
        "todo": [],
    }


def test_every_live_key_is_a_setting_and_documented() -> None:
    names = {f"{section}.{key}" for section, keys in KEYS.items() for key in keys} | set(SECTIONS)
    assert names >= LIVE
    page = (Path(__file__).parents[4] / "docs/settings.md").read_text()
    reported = page.partition("take effect at once:")[2].partition("The others wait")[0]
    assert set(re.findall(r"`([a-z_.]+)`", reported)) == LIVE


def test_each_key_alone_is_either_live_or_waits() -> None:
    now = Settings()
    for section in SECTIONS:
        if section == "mesh":
            continue
        for field in dataclasses.fields(getattr(now, section)):
            other = dataclasses.replace(getattr(now, section), **{field.name: object()})
            change = compare(now, dataclasses.replace(now, **{section: other}))
            name = f"{section}.{field.name}"
            assert (name in change.live) == (name in LIVE)
            assert (name in change.waiting) == (name not in LIVE)
