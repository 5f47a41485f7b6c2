"""The small Docker image `lab` that every host's Docker has: there is no registry to pull from.

Made from the root filesystem's static busybox. Its default command serves pages on port 80:
`/` is fixed, `/cgi-bin/whoami` the asker's address, `/cgi-bin/hostname` the container's name.
"""

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from hostmesh_lab import shell
from hostmesh_lab.errors import LabError

PAGE = "hostmesh lab\n"
FORMAT = 2
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_HEADER = '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\n'
_SCRIPTS = {
    # An IPv4 address comes as [::ffff:192.0.2.1], because httpd listens on IPv6.
    "whoami": _HEADER + 'a=${REMOTE_ADDR#"["}; a=${a%"]"}; echo "${a#::ffff:}"\n',
    "hostname": _HEADER + "hostname\n",
}


def ensure(rootfs: Path) -> Path:
    """Return the image as `docker load` takes it, made beside the root filesystem if need be."""
    target = rootfs.parent / f"lab-image-{FORMAT}.tar"
    if not target.exists():
        with tempfile.NamedTemporaryFile(dir=rootfs.parent, delete=False) as file:
            file.write(archive(rootfs))
        Path(file.name).rename(target)
    return target


def _busybox(rootfs: Path) -> Path:
    for name in ("usr/bin/busybox", "bin/busybox"):
        if (rootfs / name).is_file():
            return rootfs / name
    raise LabError(f"no busybox in {rootfs}", "hostmesh-lab image --purge, then again")


def archive(
    rootfs: Path, name: str = "lab", more: Mapping[str, tuple[bytes, int]] | None = None
) -> bytes:
    """Return the whole image: a configuration, one layer, a manifest.

    Args:
        rootfs: Where busybox is.
        name: What Docker calls the image.
        more: Files beside busybox's, with their modes.
    """
    busybox = _busybox(rootfs)
    applets = shell.run([str(busybox), "--list"], timeout_s=10).stdout.split()
    layer = _layer(busybox.read_bytes(), applets, more or {})
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "2000-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/bin"],
                "Cmd": ["httpd", "-f", "-p", "80", "-h", "/www"],
                "StopSignal": "SIGKILL",
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()],
            },
            "history": [{"created": "2000-01-01T00:00:00Z", "comment": "busybox"}],
        }
    ).encode()
    digest = hashlib.sha256(config).hexdigest()
    tags = [f"{name}:latest"]
    manifest = [{"Config": f"{digest}.json", "RepoTags": tags, "Layers": ["layer.tar"]}]
    return _tar(
        {
            f"{digest}.json": (config, 0o644),
            "layer.tar": (layer, 0o644),
            "manifest.json": (json.dumps(manifest).encode(), 0o644),
        }
    )


def _layer(busybox: bytes, applets: list[str], more: Mapping[str, tuple[bytes, int]]) -> bytes:
    files = {
        "bin/busybox": (busybox, 0o755),
        "etc/passwd": (
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
            0o644,
        ),
        "etc/group": (b"root:x:0:\nnogroup:x:65534:\n", 0o644),
        "www/index.html": (PAGE.encode(), 0o644),
        **{f"www/cgi-bin/{name}": (text.encode(), 0o755) for name, text in _SCRIPTS.items()},
        **more,
    }
    links = {f"bin/{name}": "busybox" for name in applets if f"bin/{name}" not in files}
    folders = {"bin", "etc", "www", "www/cgi-bin", "tmp", "root", "proc", "sys", "dev"}
    folders |= {str(parent) for path in more for parent in PurePosixPath(path).parents} - {"."}
    return _tar(files, links, sorted(folders))


def _tar(
    files: dict[str, tuple[bytes, int]],
    links: dict[str, str] | None = None,
    folders: list[str] | None = None,
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in folders or []:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()
