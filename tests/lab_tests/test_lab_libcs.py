"""The two C libraries' resolvers in containers, and a machine that boots with packages."""

import pytest
from hostmesh_lab.filesystems import lab_image, libc_image
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = pytest.mark.engine
LAB = LabOptions(
    name="lablibc",
    hosts=1,
    etcd_members=0,
    host=HostOptions(agent=False, images=libc_image.NAMES),
)
BOOTED = LabOptions(
    name="labpkgboot",
    hosts=1,
    etcd_members=0,
    host=HostOptions(
        agent=False, systemd=True, images=["lab-musl"], packages=["firewalld", "openssh-server"]
    ),
    cidr=None,
)
OTHER_SUITES = [
    LabOptions(name=f"lablibc-{suite}", hosts=1, etcd_members=0, suite=suite, host=LAB.host)
    for suite in ("bookworm", "forky")
]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(LAB, id="trixie"),
        *(pytest.param(each, id=each.suite, marks=pytest.mark.full) for each in OTHER_SUITES),
    ],
)
def test_both_c_libraries_find_names_and_fetch_pages(options: LabOptions) -> None:
    with Lab.up(options) as lab:
        host = lab.hosts["host1"]
        web = host.start_container("web")
        for image, refusal in (
            ("lab-glibc", "Servname not supported for ai_socktype"),
            ("lab-musl", "Unrecognized service"),
        ):
            host.start_container(
                image,
                image=image,
                options=["--add-host", f"there.test:{web}"],
                command=["httpd", "-f"],
            )

            def inside(*argv: str, name: str = image) -> tuple[int, str]:
                done = host.docker("exec", name, *argv, check=False)
                return done.returncode, done.stdout + done.stderr

            assert inside("lookup", "there.test") == (0, f"{web}\n")
            assert inside("lookup", "there.test", "80", "/") == (0, lab_image.PAGE)
            status, said = inside("lookup", "there.test", "no-such-service", "/")
            assert (status, refusal in said) == (1, True), said
        assert web in host.docker("exec", "lab-glibc", "getent", "ahosts", "there.test").stdout


@pytest.mark.full
@pytest.mark.parametrize("options", [pytest.param(BOOTED, id="booted")])
def test_a_machine_boots_with_packages_whose_services_wait_to_be_started(
    options: LabOptions,
) -> None:
    with Lab.up(options) as lab:
        host = lab.hosts["host1"]
        assert isinstance(host, BootedHost)
        units = ("firewalld.service", "ssh.service")
        assert [host.unit(each, "ActiveState")["ActiveState"] for each in units] == ["inactive"] * 2
        host.run(["ssh-keygen", "-A"])
        host.systemctl("enable", "--now", *units)
        wait_until(
            lambda: "running" in host.run(["firewall-cmd", "--state"]).stdout, 20, "firewalld"
        )
        host.reboot()
        assert [host.unit(each, "ActiveState")["ActiveState"] for each in units] == ["active"] * 2
        assert "lab-musl" in host.docker("image", "ls").stdout
