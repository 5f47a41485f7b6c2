"""The Debian package on a Debian: what is in it, and install, upgrade, remove and purge.

The target has no network, no compiler and no pip: what the package does not bring is not there.
"""

from __future__ import annotations

import functools
import io
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from deploy.deb import build, contents
from tests.deploy.target import CLONE, Target, with_packages

pytestmark = pytest.mark.netns

GOLDEN = Path(__file__).parent / "golden"
SUITES = [
    "trixie",
    pytest.param("bookworm", marks=pytest.mark.full),
    pytest.param("forky", marks=pytest.mark.full),
]


@pytest.fixture(scope="module", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    if os.geteuid() != 0:
        pytest.skip("needs root for the suites' root filesystems")
    return str(request.param)


@pytest.fixture(scope="module")
def package(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.build(suite, tmp_path_factory.mktemp("dist"), say=print)


@pytest.fixture
def target(suite: str, tmp_path: Path) -> Target:
    return Target(suite, tmp_path / "target")


def listing(package: Path) -> list[str]:
    output = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True)
    return output.stdout.splitlines()


@functools.cache
def archive(package: Path) -> bytes:
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def content(package: Path, name: str) -> str:
    with tarfile.open(fileobj=io.BytesIO(archive(package))) as tar:
        file = tar.extractfile(f"./{name}")
        assert file is not None
        return file.read().decode()


def test_the_package_holds_these_files_and_no_others(package: Path) -> None:
    """Left out: the libraries' modules (requirements.lock), and folders that go in whole."""
    lines = []
    whole = re.compile(
        r"site-packages/[^/]+|/doc/hostmesh/[^/]+[.]md$|/systemd/system/|/$"
        rf"|/share/hostmesh/({'|'.join(contents.KITS)})/"
    )
    for line in listing(package):
        mode, owner, _, _, _, name = line.split(None, 5)
        assert owner == "root/root"
        if not whole.search(name):
            lines.append(f"{mode} {re.sub(r'python3[.][0-9]+', 'python3.N', name)}\n")
    assert sorted(lines) == (GOLDEN / "package.txt").read_text().splitlines(keepends=True)


def test_every_unit_and_page_is_inside_and_units_name_programs_that_are(package: Path) -> None:
    names = {line.split(None, 5)[5].removeprefix(".") for line in listing(package)}
    for unit in (CLONE / "systemd").glob("*.service"):
        assert f"/usr/lib/systemd/system/{unit.name}" in names
        text = content(package, f"usr/lib/systemd/system/{unit.name}")
        named = re.findall(r"^Exec\w+=[-+!@:]*(\S+)", text, re.MULTILINE)
        others = {"/bin/sh", "systemctl", "ip", "wireguard-go"}  # the last is suggested
        programs = set(named) - others
        assert named
        # Found on systemd's own path, so that the same unit serves the package and install.sh.
        assert all({f"/usr/bin/{each}", f"/usr/sbin/{each}"} & names for each in programs)
    for page in (CLONE / "docs").glob("*.md"):
        assert f"/usr/share/doc/hostmesh/{page.name}" in names


def test_every_kit_is_inside_as_it_is_in_the_clone(package: Path) -> None:
    """With the modes that git has: hosts.sh is run where it lies."""
    files = [line.split(None, 5) for line in listing(package) if not line.startswith("d")]
    modes = {name.removeprefix("./"): mode for mode, *_, name in files}
    named = ["ls-files", *(f"deploy/{kit}" for kit in contents.KITS)]
    listed = subprocess.run(
        ["git", "-C", CLONE, *named], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) >= 11
    for name in listed.stdout.splitlines():
        place = f"usr/share/hostmesh/{name.removeprefix('deploy/')}"
        runs = os.access(CLONE / name, os.X_OK)
        assert modes[place] == ("-rwxr-xr-x" if runs else "-rw-r--r--"), name
        assert content(package, place) == (CLONE / name).read_text(), name


def test_no_tool_to_build_or_install_with_is_inside(package: Path) -> None:
    names = [line.split(None, 5)[5] for line in listing(package)]
    inside = {match[1] for name in names if (match := re.search(r"site-packages/([^/]+)/", name))}
    assert {"agent", "grpc", "etcd3", "iptc", "pyroute2", "docker"} <= inside
    assert not inside & {"pip", "setuptools", "pkg_resources", "pytest", "tests"}
    compiled = {name for name in names if name.endswith(".pyc")}
    sources = {name for name in names if name.endswith(".py")}
    assert len(compiled) >= len(sources) - 5  # a library's template for old Pythons may not compile


def test_it_runs_without_network_compiler_or_pip(target: Target, package: Path) -> None:
    before = target.files()
    output = target.run(
        f"! command -v cc gcc pip pip3; dpkg -i {target.take(package)} && dpkg --audit"
        " && cd /tmp && mkdir agent && echo raise SystemExit > agent/__init__.py"
        " && agentctl version && hostmesh-agent --check && agentctl config show || test $? = 14"
    )
    assert re.search(r"^agentctl \d+\.\d+", output, re.MULTILINE), output
    assert "settings are good" in output
    output = target.run(
        "/usr/lib/hostmesh/bin/python3 -I -c 'from agent.etcd.etcd3_compat import rpc;"
        " from agent.kernel.firewall.legacy import _library; _library();"
        " import docker, pyroute2, structlog, tenacity; print(rpc.RangeRequest)'"
        " && systemctl is-enabled hostmesh-agent.service"
        " && ! dpkg --verify hostmesh | grep -v -e /usr/share/doc -e /usr/share/man"
    )
    assert "enabled" in output
    target.run("rm -r /tmp/agent; dpkg -P hostmesh; rm /hostmesh*.deb")
    before.pop("./etc/hostmesh")  # an empty folder of the lab's image
    assert target.files() == before


def test_the_doctor_runs_from_an_unpacked_package(target: Target, package: Path) -> None:
    """Before anything is installed: nothing of the host is written."""
    output = target.run(
        f"dpkg-deb -x {target.take(package)} /tmp/hostmesh; cd /tmp/hostmesh/usr/lib/hostmesh;"
        " bin/python3 -I -m agent.ctl doctor --set etcd.endpoints=http://127.0.0.1:9 || test $? = 1"
    )
    assert re.search("^ok +kernel: routes", output, re.MULTILINE), output
    assert re.search("^ok +kernel: firewall", output, re.MULTILINE), output
    assert "this host cannot join yet" in output


def test_each_shell_finds_and_reads_its_completion(
    suite: str, package: Path, tmp_path: Path
) -> None:
    """By its own search path, as a user's shell does."""
    target = Target(suite, tmp_path / "shells", [with_packages(suite, "zsh", "fish")])
    output = target.run(
        f"dpkg -i {target.take(package)} >/dev/null 2>&1; export HOME=/root"
        "; bash -c '. /usr/share/bash-completion/completions/agentctl; complete -p agentctl'"
        "; zsh -fc 'autoload -Uz compinit; compinit -u -D; print zsh $_comps[agentctl]'"
        "; zsh -n /usr/share/zsh/vendor-completions/_agentctl"
        "; fish -c 'complete -C \"agentctl doc\"'"
    ).splitlines()
    assert "complete" in output[0]
    assert output[1] == "zsh _agentctl"
    assert {line.split("\t")[0] for line in output[2:]} == {"docker", "doctor"}


def test_an_agent_that_was_never_configured_is_enabled_and_not_started(
    target: Target, package: Path
) -> None:
    file, line = target.take(package), "not started: name etcd in /etc/hostmesh/agent.toml"
    install = f"mkdir -p /run/systemd/system; dpkg -i {file}; rm -r /run/systemd/system"
    assert line in target.run(install)
    assert "enabled" in target.run("systemctl is-enabled hostmesh-agent.service")
    settings = '[etcd]\nendpoints = ["http://192.0.2.1:2379"]'
    target.run(
        "dpkg -P hostmesh; mkdir -p /etc/hostmesh;"
        f" printf '%s\\n' '{settings}' >/etc/hostmesh/agent.toml"
    )
    assert line not in target.run(install)


def test_settings_that_were_there_first_are_kept(target: Target, package: Path) -> None:
    """A cloud image brings its settings before the package; dpkg must not stop at a question."""
    seed = '[etcd]\nendpoints = ["http://192.0.2.1:2379"]\n'
    target.put("/etc/hostmesh/agent.toml", seed)
    file = target.take(package)
    target.run(f"dpkg -i {file} </dev/null")
    assert target.run("cat /etc/hostmesh/agent.toml") == seed
    target.run(f"dpkg -i {file} </dev/null && dpkg -r hostmesh </dev/null")
    assert target.run("cat /etc/hostmesh/agent.toml") == seed
    target.run("dpkg -P hostmesh </dev/null")
    assert target.run("ls /etc/hostmesh", check=False).count("agent.toml") == 0


def test_an_upgrade_does_not_leave_and_keeps_the_operators_disable(
    target: Target, package: Path
) -> None:
    """Promise 3: the lease, and what the host remembers, outlive an upgrade."""
    state = '{"version": 1, "left": false, "switched": {}}'
    file = target.take(package)
    target.run(f"dpkg -i {file} && systemctl disable hostmesh-agent.service")
    target.put("/var/lib/hostmesh/state.json", state)
    target.put("/run/hostmesh/routes", "")
    target.run(f"dpkg -i {file}")
    assert target.run("cat /var/lib/hostmesh/state.json") == state
    assert target.run("ls /run/hostmesh") == "routes\n"
    assert "disabled" in target.run("systemctl is-enabled hostmesh-agent.service", check=False)


def test_removal_leaves_the_mesh_and_installing_again_joins_it(
    target: Target, package: Path
) -> None:
    file = target.take(package)
    target.put("/var/lib/hostmesh/state.json", '{"version": 1, "left": false, "switched": {}}')
    target.put("/etc/machine-id", f"{7:032x}\n")
    output = target.run(f"dpkg -i {file} && dpkg -r hostmesh")
    assert "the lease could not be released yet" in output  # no etcd here, and it is said
    assert '"left": true' in target.run("cat /var/lib/hostmesh/state.json")
    target.run(f"dpkg -i {file}")
    assert '"left": false' in target.run("cat /var/lib/hostmesh/state.json")


def test_installing_again_keeps_the_operators_leave(target: Target, package: Path) -> None:
    file = target.take(package)
    target.put("/var/lib/hostmesh/state.json", '{"version": 1, "left": true, "switched": {}}')
    target.run(f"dpkg -i {file} && dpkg -r hostmesh && dpkg -i {file}")
    assert '"left": true' in target.run("cat /var/lib/hostmesh/state.json")


def test_beside_the_installers_version_it_does_not_install(target: Target, package: Path) -> None:
    target.put("/etc/systemd/system/hostmesh-agent.service", "[Service]\n")
    target.run("mkdir -p /opt/hostmesh/venv/bin && cp /bin/true /opt/hostmesh/venv/bin/python")
    output = target.run(f"dpkg -i {target.take(package)}", check=False)
    assert "deploy/install.sh --uninstall --keep-membership" in output
    assert "status=1" in output


@pytest.mark.full
def test_the_same_sources_make_the_same_package(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the root filesystem is made again, the compiled extension too."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767300000")  # a commit meanwhile changes nothing
    package = build.build(suite, tmp_path / "first", say=print)
    cache = Path(os.environ.get("HOSTMESH_LAB_CACHE", "/var/cache/hostmesh-lab"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/images").symlink_to(cache / "images")
    monkeypatch.setenv("HOSTMESH_LAB_CACHE", str(tmp_path / "cache"))
    again = build.build(suite, tmp_path / "dist", say=print)
    assert again.read_bytes() == package.read_bytes()


@pytest.mark.full
def test_debians_own_lint_finds_nothing(suite: str, package: Path, tmp_path: Path) -> None:
    """Each of lintian's findings is overridden with a reason."""
    if suite != "trixie":
        pytest.skip("one version of lintian is enough: each names its findings anew")
    target = Target(suite, tmp_path / "lint", [with_packages(suite, "lintian")])
    assert target.run(f"lintian --allow-root --tag-display-limit 0 {target.take(package)}") == ""


def test_make_deb_says_what_the_version_is() -> None:
    assert build.version_of(CLONE) in (CLONE / "agent/__init__.py").read_text()
