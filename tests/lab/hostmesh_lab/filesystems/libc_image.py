"""Docker images whose programs use glibc's resolver, or musl's: the two ask for names differently.

Both are the image `lab` with `lookup NAME [PORT PATH]` (guest/lookup.c), which asks by getaddrinfo
and fetches a page; `lab-glibc` has getent too. Busybox, their shell, is linked statically.
They are made of Debian's packages; the compilers live in a throw-away overlay.
"""

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

from hostmesh_lab import paths
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import images, lab_image

NAMES = ("lab-glibc", "lab-musl")
_SOURCE = Path(__file__).parents[1] / "guest/lookup.c"
_SCRIPT = """\
apt-get -q update
apt-get -q install -y --no-install-recommends gcc libc6-dev musl-tools
mkdir -p /made/lab-glibc/bin /made/lab-musl/bin
gcc -O -Wall -Werror -o /made/lab-glibc/bin/lookup /lookup.c
musl-gcc -O -Wall -Werror -static -o /made/lab-musl/bin/lookup /lookup.c
cp /usr/bin/getent /made/lab-glibc/bin/getent
for library in $(ldd /made/lab-glibc/bin/* | grep -o '/[^ :]*\\.so[^ :]*' | sort -u); do
    cp -L --parents "$library" /made/lab-glibc
done"""


def ensure(image: images.Image, names: Iterable[str], say: images.Say) -> None:
    """Make the images with these names, as `docker load` takes them, if they are not cached."""
    for name in set(names):
        if name not in NAMES:
            raise LabError(f"no image {name!r}", "one of " + ", ".join(NAMES))
        images.build_once(_folder(image), lambda temporary: _build(image, temporary, say), say)


def archive(image: images.Image, name: str) -> Path:
    """Return the path of an image that was made."""
    return _folder(image) / f"{name}.tar"


def _folder(image: images.Image) -> Path:
    recipe = json.dumps([image.key, _SCRIPT, _SOURCE.read_text(), lab_image.FORMAT])
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    return paths.cache_root() / "libcs" / f"{image.key}-{key}"


def _build(image: images.Image, folder: Path, say: images.Say) -> None:
    started = time.monotonic()
    log = paths.cache_root() / f"build-libcs-{image.suite}.log"
    log.write_text("")
    say(f"making {' and '.join(NAMES)} from {image.suite} (less than a minute; log: {log})")
    upper = folder / "upper"
    images.lend_name_service(upper)
    images.prepare_apt(upper)
    (upper / "lookup.c").write_bytes(_SOURCE.read_bytes())
    images.in_overlay(image, folder, _SCRIPT, log, doing=f"making {', '.join(NAMES)}")
    for name in NAMES:
        made = upper / "made" / name
        files = {
            str(path.relative_to(made)): (path.read_bytes(), 0o755)
            for path in sorted(made.rglob("*"))
            if path.is_file()
        }
        files["etc/nsswitch.conf"] = (b"hosts: files dns\n", 0o644)
        (folder / f"{name}.tar").write_bytes(lab_image.archive(image.rootfs, name, files))
    for each in ("upper", "work", "merged"):
        images.remove_tree(folder / each)
    say(f"{' and '.join(NAMES)} are ready after {time.monotonic() - started:.0f} s")
