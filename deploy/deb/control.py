"""The package's papers: control, checksums, changelog, copyright."""

from __future__ import annotations

import email.parser
import email.utils
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from deploy.deb import contents

_CONTROL = """\
Package: hostmesh
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {size_kib}
Depends: {python}, iptables, libc6 (>= 2.36), libstdc++6, init-system-helpers (>= 1.54~)
Recommends: docker.io | docker-ce, iproute2, ca-certificates
Suggests: ansible-core, etcd-client, openssl, wireguard-go, wireguard-tools
Section: net
Priority: optional
Description: one routed container network for plain Docker hosts
 Each host leases a subnet from etcd and gives it to its Docker Engine. The
 agent keeps the kernel's routes and the firewall as the leases of all hosts
 say, so that every container has an address that every other host and
 container can reach, without an overlay.
 .
 Everything that the agent needs of Python beside the interpreter is inside.
"""
_CHANGELOG = """\
hostmesh ({version}) {suite}; urgency=medium

  * What is new: /usr/share/doc/hostmesh/NEWS.gz

 -- {maintainer}  {date}
"""
_COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: hostmesh

Files: *
Copyright: 2026 the Hostmesh authors
License: Apache-2.0
 On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.
"""
_BUNDLED = """
Files: {folder}/*
Copyright: the authors of each library
License: {licenses}
Comment: Libraries from PyPI, unchanged; the whole text of each is in its .dist-info folder there.
{libraries}"""


@dataclass(frozen=True)
class Build:
    """The values that all control files of one package share."""

    version: str
    suite: str
    architecture: str
    python: str
    epoch: int

    @property
    def maintainer(self) -> str:
        """The builder, from Debian's own two variables, as its tools read them."""
        name = os.environ.get("DEBFULLNAME", "Hostmesh")
        return f"{name} <{os.environ.get('DEBEMAIL', 'hostmesh@localhost.localdomain')}>"


def write(build: Build, root: Path, packages: Path) -> None:
    """Write DEBIAN/ (less the scripts) and the papers under /usr/share/doc.

    Args:
        build: What to say.
        root: The package's files; complete but for these.
        packages: The folder of the bundled libraries, under ``root``.
    """
    doc = root / "usr/share/doc/hostmesh"
    doc.mkdir(parents=True, exist_ok=True)
    changelog = _CHANGELOG.format(
        version=build.version,
        suite=build.suite,
        maintainer=build.maintainer,
        date=email.utils.formatdate(build.epoch),
    )
    (doc / "changelog.gz").write_bytes(contents.zipped(changelog.encode()))
    (doc / "copyright").write_text(_COPYRIGHT + _bundled(packages, root))
    papers = root / "DEBIAN"
    papers.mkdir(exist_ok=True)
    (papers / "conffiles").write_text("".join(f"{name}\n" for name in contents.CONFFILES))
    sums = _checksums(root)
    (papers / "md5sums").write_text("".join(f"{md5}  {name}\n" for name, md5 in sums.items()))
    size_kib = sum((root / name).stat().st_size + 1023 for name in sums) // 1024
    control = _CONTROL.format(
        version=build.version,
        architecture=build.architecture,
        maintainer=build.maintainer,
        size_kib=size_kib,
        python=build.python,
    )
    (papers / "control").write_text(control)


def _checksums(root: Path) -> Mapping[str, str]:
    """For `dpkg --verify`, which knows MD5 only."""
    return {
        str(path.relative_to(root)): hashlib.md5(
            path.read_bytes(), usedforsecurity=False
        ).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.relative_to(root).parts[0] != "DEBIAN"
    }


def _bundled(packages: Path, root: Path) -> str:
    """The paragraph on the libraries that are inside, from their own metadata."""
    lines, licenses = [], set()
    for metadata in sorted(packages.glob("*.dist-info/METADATA")):
        fields = email.parser.Parser().parsestr(metadata.read_text(errors="replace"))
        author = _one_line(fields["Author"] or fields["Author-email"] or "its authors")
        licenses.add(_license(fields))
        lines.append(f" {fields['Name']} {fields['Version']} ({author}): {_license(fields)}\n")
    return _BUNDLED.format(
        folder=packages.relative_to(root),
        licenses=", ".join(sorted(licenses)),
        libraries="".join(lines),
    )


def _license(fields: Message[str, str]) -> str:
    classified = [
        text.rsplit(" :: ", 1)[-1]
        for text in fields.get_all("Classifier", [])
        if text.startswith("License :: ")
    ]
    named = fields["License-Expression"] or (fields["License"] or "").strip()
    return _one_line(named.splitlines()[0] if named else ", ".join(classified) or "see there")


def _one_line(text: str) -> str:
    return " ".join(text.split())
