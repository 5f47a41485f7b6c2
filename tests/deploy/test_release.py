"""A release: the files in it, their checksums, and apt that installs from its repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.deb import build as deb
from deploy.release import build as release
from deploy.release import repository
from tests.deploy.target import CLONE, Target

pytestmark = pytest.mark.netns

EPOCH = 1767300000
SUITES = ["bookworm", "trixie", "forky"]


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root for the suites' root filesystems")


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A key in a keyring of the test's own."""
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    new = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key"]
    subprocess.run([*new, "Test <test@example.com>", "ed25519"], check=True, capture_output=True)
    yield "test@example.com"
    subprocess.run(["gpgconf", "--kill", "all"], check=False)


def small_package(folder: Path, architecture: str, version: str) -> Path:
    """A package with a name and nothing in it."""
    root = folder / f"{architecture}-{version}"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: hostmesh\nVersion: {version}\nArchitecture: {architecture}\n"
        "Maintainer: Test <test@example.com>\nDescription: nothing\n"
    )
    package = folder / f"hostmesh_{version}_trixie_{architecture}.deb"
    subprocess.run(["dpkg-deb", "--build", root, package], check=True, capture_output=True)
    return package


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_tarball_has_what_git_has_and_the_installer_needs(tmp_path: Path) -> None:
    tarball = release.archive(CLONE, tmp_path, EPOCH)
    name = tarball.name.removesuffix(".tar.gz")
    with tarfile.open(tarball) as tar:
        members = {each.name.removeprefix(f"{name}/"): each for each in tar}
    assert members["install.sh"].linkname == "deploy/install.sh"
    assert members["deploy/install.sh"].mode == 0o755
    assert {each.mtime for each in members.values()} == {EPOCH}
    assert {each.uid for each in members.values()} == {0}
    for needed in ("agent/main.py", "requirements.lock", "systemd/hostmesh-agent.service"):
        assert members[needed].mode == 0o644
    tops = {each.partition("/")[0] for each in members}
    assert tops == {*release.IN_ARCHIVE, "install.sh"}
    assert not [each for each in members if "__pycache__" in each or each.startswith("tests")]
    first = tarball.read_bytes()
    assert release.archive(CLONE, tmp_path, EPOCH).read_bytes() == first


def test_checksums_verify_and_find_a_changed_file(tmp_path: Path) -> None:
    (tmp_path / "apt").mkdir()
    (tmp_path / "apt/Release").write_text("a\n")
    (tmp_path / "hostmesh.deb").write_text("b\n")
    release.checksums(tmp_path)
    check = ["sha256sum", "--check", "--quiet", release.SUMS]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "apt/Release").write_text("c\n")
    done = subprocess.run(check, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "apt/Release: FAILED" in done.stdout


def test_a_repository_keeps_older_versions_and_is_the_same_every_time(tmp_path: Path) -> None:
    old, new = (small_package(tmp_path, "amd64", version) for version in ("1", "2"))
    other = small_package(tmp_path, "arm64", "2")
    repository.write(tmp_path / "apt", {"trixie": [old]}, epoch=EPOCH, key="")
    repository.write(tmp_path / "apt", {"trixie": [new, other]}, epoch=EPOCH, key="")
    suite = tmp_path / "apt/dists/trixie"
    index = (suite / "main/binary-amd64/Packages").read_text()
    assert re.findall("^Version: (.*)", index, re.MULTILINE) == ["1", "2"]
    assert (
        "pool/trixie/hostmesh_2_trixie_arm64.deb"
        in (suite / "main/binary-arm64/Packages").read_text()
    )
    assert "Architectures: amd64 arm64" in (suite / "Release").read_text()
    before = files(tmp_path / "apt")
    repository.write(tmp_path / "apt", {}, epoch=EPOCH, key="")
    assert files(tmp_path / "apt") == before


def test_signatures_are_of_the_key_and_go_when_it_is_not_given(tmp_path: Path, key: str) -> None:
    package = {"trixie": [small_package(tmp_path, "amd64", "1")]}
    repository.write(tmp_path / "apt", package, epoch=EPOCH, key=key)
    suite = tmp_path / "apt/dists/trixie"
    ring = tmp_path / "ring.gpg"
    armored = str(tmp_path / "apt/hostmesh.asc")
    dearmor = ["gpg", "--batch", "--dearmor", "--output", str(ring), armored]
    subprocess.run(dearmor, check=True, capture_output=True)
    for signed in ([suite / "InRelease"], [suite / "Release.gpg", suite / "Release"]):
        subprocess.run(
            ["gpgv", "--keyring", str(ring), *map(str, signed)], check=True, capture_output=True
        )
    repository.write(tmp_path / "apt", {}, epoch=EPOCH, key="")
    assert {each.name for each in suite.iterdir()} == {"Release", "main"}


def test_a_release_is_signed_where_the_key_is(tmp_path: Path, key: str) -> None:
    """Built by one machine, signed by another one, from whose folder it is published."""
    out = tmp_path / "hostmesh-1"
    package = {"trixie": [small_package(tmp_path, "amd64", "1")]}
    repository.write(out / "apt", package, epoch=EPOCH, key="")
    assert release.main(["--index", str(out), "--key", key]) == 0
    verify = ["gpg", "--batch", "--verify", f"{release.SUMS}.asc", release.SUMS]
    subprocess.run(verify, cwd=out, check=True, capture_output=True)
    check = ["sha256sum", "--check", "--quiet", release.SUMS]
    subprocess.run(check, cwd=out, check=True)
    assert release.main(["--index", str(out)]) == 0
    assert not list(out.rglob("*.asc"))
    assert release.main(["--index", str(out), "--key", "absent@example.com"]) == 1


@pytest.mark.full
@pytest.mark.timeout(900)  # the package is built first
@pytest.mark.parametrize("suite", SUITES)
def test_apt_installs_from_the_static_repository(suite: str, tmp_path: Path, key: str) -> None:
    """Signed, from a folder, with no other source; another key's repository is refused."""
    package = deb.build(suite, tmp_path / "dist", say=print)
    target = Target(suite, tmp_path / "target")
    place = tmp_path / "target/upper/srv/apt"
    repository.write(place, {suite: [package]}, epoch=EPOCH, key=key)
    (tmp_path / "target/upper/etc/apt/keyrings").mkdir(parents=True)
    shutil.copyfile(place / "hostmesh.asc", tmp_path / "target/upper/etc/apt/keyrings/hostmesh.asc")
    source = f"Types: deb\nURIs: file:/srv/apt\nSuites: {suite}\nComponents: main\n"
    target.put("/etc/apt/sources.list", "")
    target.put(
        "/etc/apt/sources.list.d/hostmesh.sources",
        f"{source}Signed-By: /etc/apt/keyrings/hostmesh.asc\n",
    )
    sandbox = "-o APT::Sandbox::User=root"
    output = target.run(
        f"apt-get {sandbox} update && apt-cache policy hostmesh"
        f" && DEBIAN_FRONTEND=noninteractive apt-get {sandbox} install --yes"
        " --no-install-recommends hostmesh && agentctl version"
    )
    assert re.search(r"^agentctl \d+\.\d+", output, re.MULTILINE), output
    assert "not signed" not in output

    target.put("/etc/apt/keyrings/hostmesh.asc", "")
    output = target.run(f"apt-get {sandbox} -o APT::Update::Error-Mode=any update", check=False)
    assert "status=100" in output, output
    target.put("/etc/apt/sources.list.d/hostmesh.sources", f"{source}Trusted: yes\n")
    target.run(f"apt-get {sandbox} update")  # as an unsigned one is used


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_package_for_arm64_has_code_for_arm64_only(tmp_path: Path) -> None:
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("NOT TESTED: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    package = deb.build("trixie", tmp_path, "arm64", say=print)
    unpack = ["dpkg-deb", "-R", str(package), str(tmp_path / "root")]
    subprocess.run(unpack, check=True)
    compiled = list((tmp_path / "root").rglob("*.so"))
    machines = {int.from_bytes(each.read_bytes()[18:20], "little") for each in compiled}
    assert machines == {183}  # EM_AARCH64
    names = {each.name.partition(".")[0] for each in compiled}
    assert {"cygrpc", "_message", "libxtwrapper"} <= names
    assert not [each for each in compiled if "x86_64" in each.name]
    assert "Architecture: arm64\n" in (tmp_path / "root/DEBIAN/control").read_text()
    check = ["md5sum", "--check", "--quiet", "DEBIAN/md5sums"]
    subprocess.run(check, cwd=tmp_path / "root", check=True)


@pytest.mark.full
def test_the_bill_names_the_libraries_of_the_lock_file(tmp_path: Path) -> None:
    bill = json.loads(release.bill_of_materials(CLONE, tmp_path, EPOCH).read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "hostmesh"
    locked = re.findall(
        r"(?m)^([a-z0-9-]+)==(\S+)(?! ; sys)", (CLONE / "requirements.lock").read_text()
    )
    purls = {each["purl"] for each in bill["components"]}
    missing = {f"pkg:pypi/{name}@{version}" for name, version in locked} - purls
    assert {re.sub("@.*", "", each) for each in missing} <= {
        "pkg:pypi/pywin32", "pkg:pypi/win-inet-pton"
    }  # fmt: skip
    needs = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    assert len(needs["root-component"]) >= 10
    first = json.dumps(bill)
    again = release.bill_of_materials(CLONE, tmp_path, EPOCH).read_text()
    assert json.dumps(json.loads(again)) == first
