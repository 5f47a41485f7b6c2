"""Every mistake is reported at once, each with its place; sources override in their order."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.errors import SettingsError, UsageError
from agent.main import main
from agent.settings import KEYS, SECTIONS, Settings, load_settings, overrides_from_flags

pytestmark = pytest.mark.unit


EXPECTED = """\
2: prefix: is outside a section; did you mean prefix in [etcd]?
5: etcd.endpoints: must not carry a user or password; use etcd.username and password_file
9: etcd.prefix: holds control characters ('no\\nslash')
11: etcd.call_timeout_s: must be a number of seconds from 0.1 to 300, not true or false (true)
12: etcd.password: unknown key; put the password into a file and name that in etcd.password_file
15: routes.protocol: must not be 16: routes of dhcp carry it
16: routes.table: must not be 255: table local is the kernel's own
17: routes.resync_s: must be from 1 to 86400 seconds, not nan
18: dokcer: unknown section; did you mean [docker]?
19: firewal: unknown section; did you mean [firewall]?
20: log: must be one table, [log]
22: docker.manage: must be true or false, not text ('yes')
23: docker.restart_command: must be a list of texts only, not a number (3)
24: docker.recorder: unknown key; [docker] has manage, socket, daemon_json, restart, restart_command, restart_timeout_s, replace, expendable, attach, docker0_share, network_len
environment HOSTMESH_ETDC_PREFIX: unknown; did you mean HOSTMESH_ETCD_PREFIX?
environment HOSTMESH_LEASE_TTL_S: lease.ttl_s: must be a whole number from 60 to 9000000000, not text ('soon')
flag: log.levle: unknown key; did you mean log.level?
flag: nothing: unknown section; there are [etcd], [mesh], [host], [routes], [firewall], [networks], [docker], [lease], [agent], [wireguard], [check], [metrics], [ui], [log]
25: mesh.cidr: is missing; [mesh] needs it"""  # noqa: E501 - as they are printed


def problems_of(
    tmp_path: Path,
    text: str,
    environ: dict[str, str] | None = None,
    flags: dict[str, str] | None = None,
) -> list[str]:
    """Problems with the path of the file cut off: ``LINE: section.key: what``."""
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environ or {}, flags or {})
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def test_a_missing_file_means_defaults_and_a_note(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "none.toml")
    assert settings.notes == (f"{tmp_path}/none.toml does not exist; defaults are used",)
    assert dataclasses.replace(settings, notes=(), path=Settings().path) == Settings()
    assert settings.mesh.config() is None


def test_a_later_source_overrides_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        '[etcd]\nprefix = "/a"\nusername = ""\n[host]\nname = "one"\n[log]\nlevel = "error"\n'
    )
    environ = {"HOSTMESH_ETCD_PREFIX": "/b", "HOSTMESH_LOG_LEVEL": "debug", "PATH": "/bin"}
    settings = load_settings(path, environ, {"log.level": "warning"})
    assert (settings.etcd.prefix, settings.host.name, settings.log.level) == (
        "/b",
        "one",
        "warning",
    )
    assert settings.sources["etcd.prefix"] == "environment HOSTMESH_ETCD_PREFIX"
    assert settings.sources["host.name"] == f"{path}:5"
    assert settings.sources["log.level"] == "flag"
    assert "etcd.endpoints" not in settings.sources


@pytest.mark.parametrize("listen", ["192.0.2.1:9560", "0.0.0.0:9560"])
def test_promise_11_the_page_is_open_to_the_network_only_if_the_file_says_so(
    tmp_path: Path, listen: str
) -> None:
    text = f'[ui]\nlisten = "{listen}"\n'
    (problem,) = problems_of(tmp_path, text)
    assert problem.startswith(f"2: ui.listen: {listen} is no loopback address")
    assert "ui.open_to_network = true" in problem
    (tmp_path / "agent.toml").write_text(text + "open_to_network = true\n")
    assert load_settings(tmp_path / "agent.toml").ui.is_open
    (tmp_path / "agent.toml").write_text('[ui]\nlisten = "127.0.0.1:9560"\n')
    assert not load_settings(tmp_path / "agent.toml").ui.is_open


def test_every_mistake_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
# comment with [brackets] = and "quotes
prefix = "/top"

[etcd]
endpoints = [
    "http://[::1]:2379",  # fine ]
    "http://user:hunter2@h:1",
]
prefix = '''no
slash'''
call_timeout_s = true
password = "hunter2"

[routes]
protocol = 16
"table" = 255
resync_s = nan
[dokcer]
[firewal.sub]
[[log]]
[docker]
manage = "yes"
restart_command = ["a", 3]
recorder = 1
[mesh]
subnet_len = 16
"""
    environ = {"HOSTMESH_ETDC_PREFIX": "/x", "HOSTMESH_LEASE_TTL_S": "soon"}
    found = problems_of(tmp_path, text, environ, {"log.levle": "x", "nothing": "y"})
    assert "\n".join(found) == EXPECTED
    assert "hunter2" not in "\n".join(found)


@pytest.mark.parametrize(
    ("section", "line", "expected"),
    [
        ("etcd", 'endpoints = "http://h:1"', "must be a list of texts, not text ('http://h:1')"),
        ("etcd", 'endpoints = ["h:1"]', "must be URLs with http:// or https://, not 'h:1'"),
        ("etcd", 'endpoints = ["http://h"]', "needs a port in 'http://h', such as :2379"),
        ("etcd", 'endpoints = ["http://h:70000"]', "has an impossible port in 'http://h:70000'"),
        ("etcd", 'endpoints = ["http://:1"]', "has no host in 'http://:1'"),
        ("etcd", 'endpoints = ["http://a..b:1"]', "has no possible host name in 'http://a..b:1'"),
        ("etcd", 'endpoints = ["http://[::1"]', "is no URL: Invalid IPv6 URL"),
        ("etcd", 'endpoints = ["http://a:1", "https://b:1"]', "mixes http:// and https://"),
        ("etcd", 'prefix = "/a/"', "must be a key prefix such as /hostmesh, not '/a/'"),
        ("etcd", 'ca_file = "relative.pem"', "must be an absolute path, not 'relative.pem'"),
        ("etcd", 'ca_file = "/no/such.pem"', "'/no/such.pem': No such file or directory"),
        ("etcd", 'username = "root"', "needs etcd.password_file beside it"),
        ("mesh", 'cidr = "10.64.0.1/10"', "has host bits set; 10.64.0.0/10 is the range"),
        ("mesh", 'cidr = "10.64.0.0/33"', "must be an IPv4 range such as 10.64.0.0/10"),
        ("mesh", 'cidr = "fd00::/8"', "must be an IPv4 range such as 10.64.0.0/10"),
        ("mesh", 'cidr = "0.0.0.0/0"', "must be a /8 to /28, not 0.0.0.0/0"),
        ("mesh", 'cidr = "127.0.0.0/9"', "must not be in 127.0.0.0/8"),
        ("host", 'node_address = "224.0.0.1"', "must be an address that peers can reach"),
        ("host", 'node_address = "nowhere"', "must be an IPv4 address, not 'nowhere'"),
        ("host", 'uplink = "eth[0"', "is no regular expression"),
        ("host", 'uplink = "route to x"', "must be an IPv4 address, not 'x'"),
        ("host", 'uplink = "10.0.0.0/99"', "must be an IPv4 range"),
        ("host", 'name = "a b"', "must be a host name, not 'a b'"),
        ("routes", "protocol = 4", "must not be 4: rtnetlink reserves 0 to 4"),
        ("routes", "protocol = 256", "must be from 1 to 255, not 256"),
        (
            "routes",
            "protocol = 140.0",
            "must be a whole number from 1 to 255, not a number (140.0)",
        ),
        ("firewall", 'variant = "iptables"', "must be one of auto, nft, legacy, not 'iptables'"),
        ("docker", 'restart = "often"', "must be one of when-idle, always, never, not 'often'"),
        (
            "lease",
            "heartbeat_ttl_s = 3600\nttl_s = 3600",
            "must be shorter than lease.ttl_s (3600)",
        ),
        ("lease", "memory_ttl_s = 3600", "must not be shorter than lease.ttl_s (86400)"),
        ("agent", f'run_dir = "/{"x" * 120}"', "is too long: the kernel takes 107 bytes"),
        ("log", 'format = "xml"', "must be one of auto, console, json, not 'xml'"),
    ],
)
def test_wrong_values_are_named_with_line_and_reason(
    tmp_path: Path, section: str, line: str, expected: str
) -> None:
    found = problems_of(tmp_path, f"\n\n[{section}]\n{line}\n")
    key = line.partition(" ")[0]
    assert len(found) == 1
    assert found[0].startswith(f"4: {section}.{key}: {expected}")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("subnet_len = 15", "subnet_len: must be 16 or more: mesh.cidr 10.64.0.0/14 does not hold"),
        ("subnet_min = '10.128.0.0'", "subnet_min: 10.128.0.0 is outside mesh.cidr 10.64.0.0/14"),
        ("subnet_max = '10.65.1.0'", "subnet_max: 10.65.1.0 is not the first address of a /16"),
        (
            "subnet_min = '10.66.0.0'\nsubnet_max = '10.65.0.0'",
            "subnet_min: 10.66.0.0 is above mesh.subnet_max 10.65.0.0",
        ),
        ("subnet_len = 11", "subnet_len: must be from 12 to 30, not 11"),
    ],
)
def test_an_impossible_mesh_is_refused(tmp_path: Path, more: str, expected: str) -> None:
    found = problems_of(tmp_path, f"[mesh]\ncidr = '10.64.0.0/14'\n{more}\n")
    assert [problem.partition(": ")[0] for problem in found] == ["3"]
    assert found[0].startswith(f"3: mesh.{expected}")


def test_a_mesh_of_too_many_subnets_is_refused(tmp_path: Path) -> None:
    found = problems_of(tmp_path, "[mesh]\ncidr = '10.0.0.0/8'\nsubnet_len = 25\n")
    assert found == ["3: mesh.subnet_len: must be 24 or less: a mesh has 65536 subnets at most"]


def test_mesh_settings_make_a_whole_config() -> None:
    settings = load_settings(overrides={"mesh.cidr": "10.64.0.0/10"})
    config = settings.mesh.config()
    assert config is not None
    assert config.cidr == IPv4Network("10.64.0.0/10")
    assert (config.subnet_len, config.backend) == (16, "host-gw")
    assert config.subnet_min == IPv4Address("10.64.0.0")
    assert config.subnet_max == IPv4Address("10.127.0.0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[etcd\nx = 1", "1: column 6: Expected ']' at the end of a table declaration"),
        ("[log]\nlevel = debug", "2: column 9: Invalid value; text needs quotes"),
        ("[log]\nlevel = ", "2: end of file: Invalid value"),
        ('x = """', "1: end of file: "),
        ("[log]\n[log]\n", "2: column 5: Cannot declare"),
    ],
)
def test_broken_toml_is_reported_with_line_and_column(
    tmp_path: Path, text: str, expected: str
) -> None:
    found = problems_of(tmp_path, text, {}, {"log.level": "x"})
    assert found[0].startswith(expected)
    assert found[1].startswith("flag: log.level: "), "the other sources are checked all the same"


@pytest.mark.parametrize(
    "text", ["[" * 5000, "x = " + "[" * 5000, "x = " + "9" * 5000, "\x00", "\u2028"]
)
def test_hostile_toml_is_an_error_not_a_traceback(tmp_path: Path, text: str) -> None:
    assert problems_of(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path)
    path = tmp_path / "agent.toml"
    path.write_bytes(b"[log]\n# fine\nlevel = \xff\n")
    with pytest.raises(SettingsError, match=r"agent\.toml:3: is not UTF-8 text"):
        load_settings(path)
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(SettingsError, match="larger than"):
        load_settings(path)


def test_lines_are_right_in_every_spelling_of_toml(tmp_path: Path) -> None:
    text = (
        'etcd.prefix = 1\r\nlog = { level = 1, format = [1, {a = "}"}] }\r\n'
        "[ 'docker' ]\r\n"
        'restart_command = [ # "\r\n  "[", 1,\r\n]\r\n'
        "expendable = '''\r\nmanage = 2\r\n'''\r\n"
        '"manage" = """\r\nreplace = 3 \\""" \r\n"""\r\n'
        "replace = 7\r\n"
    )
    lines = [
        problem.partition(": what")[0].split(":")[0:2] for problem in problems_of(tmp_path, text)
    ]
    assert lines == [
        ["1", " etcd.prefix"],
        ["2", " log.level"],
        ["2", " log.format"],
        ["4", " docker.restart_command"],
        ["7", " docker.expendable"],
        ["10", " docker.manage"],
        ["13", " docker.replace"],
    ]


@pytest.mark.parametrize("pattern", ["Web", "a b", "web.*", "x" * 64])
def test_a_pattern_that_no_network_can_match_is_refused(tmp_path: Path, pattern: str) -> None:
    (problem,) = problems_of(tmp_path, f'networks.allow = ["*", "{pattern}"]\n')
    assert "lower-case" in problem


def test_environment_texts_become_values_of_every_kind(tmp_path: Path) -> None:
    environ = {
        "HOSTMESH_ETCD_ENDPOINTS": "https://a:2379, https://b:2379,https://a:2379",
        "HOSTMESH_DOCKER_MANAGE": "off",
        "HOSTMESH_DOCKER_RESTART_COMMAND": '["service", "docker, restart"]',
        "HOSTMESH_NETWORKS_ALLOW": "web-*, db",
        "HOSTMESH_ROUTES_RESYNC_S": "2.5",
        "HOSTMESH_ROUTES_TABLE": "100",
        "HOSTMESH_HOST_NODE_ADDRESS": "192.0.2.1",
        "HOSTMESH_AGENT_RUN_DIR": str(tmp_path),
    }
    settings = load_settings(tmp_path / "none", environ)
    assert settings.etcd.endpoints == ("https://a:2379", "https://b:2379")
    assert settings.docker.manage is False
    assert settings.docker.restart_command == ("service", "docker, restart")
    assert settings.networks.allow == ("web-*", "db")
    assert (settings.routes.resync_s, settings.routes.table) == (2.5, 100)
    assert settings.host.node_address == IPv4Address("192.0.2.1")
    assert settings.agent.socket == tmp_path / "agent.sock"


def test_other_variables_with_the_prefix_are_noted_not_refused(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "none", {"HOSTMESH_LAB_CACHE": "/x"})
    assert "environment HOSTMESH_LAB_CACHE is not a setting and was ignored" in settings.notes


def test_a_password_stays_in_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    settings = load_settings(overrides={"etcd.username": "root", "etcd.password_file": str(secret)})
    assert settings.etcd.password == "hunter2"  # noqa: S105 - planted
    assert "hunter2" not in repr(settings)
    secret.write_bytes(b"hunter2\xff")
    with pytest.raises(SettingsError, match="is not UTF-8 text") as caught:
        _ = settings.etcd.password
    assert "hunter2" not in str(caught.value)
    secret.unlink()
    with pytest.raises(SettingsError, match="No such file"):
        _ = settings.etcd.password


def test_a_wrong_value_is_not_compared_with_others_by_its_default(tmp_path: Path) -> None:
    found = problems_of(tmp_path, "[lease]\nmemory_ttl_s = ''\nttl_s = 2592001\n")
    assert [problem.partition(": must")[0] for problem in found] == ["2: lease.memory_ttl_s"]


def test_certificates_go_with_https_and_in_pairs(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.touch()
    endpoints = "endpoints = ['http://192.0.2.1:2379']"
    found = problems_of(tmp_path, f"[etcd]\ncert_file = '{pem}'\n{endpoints}\n")
    assert found == [
        "2: etcd.cert_file: needs etcd.key_file beside it",
        "2: etcd.cert_file: has no use: etcd.endpoints begin with http://, not https://",
    ]


def test_set_flags_are_taken_apart() -> None:
    assert overrides_from_flags(["log.level=debug", "docker.restart_command=a=b"]) == {
        "log.level": "debug",
        "docker.restart_command": "a=b",
    }
    for wrong in ("log.level", "level=debug"):
        with pytest.raises(UsageError, match="--set needs"):
            overrides_from_flags([wrong])


def test_a_file_that_is_named_must_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--settings", "/none/agent.toml", "--check"]) == UsageError.exit_code
    assert "there is no file '/none/agent.toml'" in capsys.readouterr().err


def test_every_default_is_itself_acceptable() -> None:
    for section, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            if field.default in (dataclasses.MISSING, None):
                continue
            default = field.default
            if isinstance(default, tuple):
                default = [each if isinstance(each, str) else str(each) for each in default]
            elif isinstance(default, Path):
                default = str(default)
            assert KEYS[section][field.name].convert(default) == field.default


def test_an_operators_file_replaces_the_hosts_credentials_only(tmp_path: Path) -> None:
    for name in ("ca.crt", "host.crt", "host.key", "operator/op.crt", "operator/op.key"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "agent.toml").write_text(
        f'[etcd]\nendpoints = ["https://192.0.2.1:2379"]\nca_file = "{tmp_path}/ca.crt"\n'
        f'cert_file = "{tmp_path}/host.crt"\nkey_file = "{tmp_path}/host.key"\n'
    )
    operator = tmp_path / "operator/operator.toml"
    operator.write_text('[etcd]\ncert_file = "op.crt"\nkey_file = "op.key"\n')
    etcd = load_settings(tmp_path / "agent.toml", operator=operator).etcd
    assert etcd.endpoints == ("https://192.0.2.1:2379",)
    assert etcd.cert_file == tmp_path / "operator/op.crt"
    assert etcd.ca_file is None
    operator.write_text('[etcd]\nkey_fil = "op.key"\n[log]\nlevel = "debug"\n')
    with pytest.raises(SettingsError) as refused:
        load_settings(tmp_path / "agent.toml", operator=operator)
    assert len(refused.value.problems) == 2
    assert all(str(operator) in each for each in refused.value.problems)
    with pytest.raises(SettingsError, match="absent does not exist"):
        load_settings(tmp_path / "agent.toml", operator=tmp_path / "absent")
