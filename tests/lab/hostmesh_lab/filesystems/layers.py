"""Make the layers that machines mount read-only: root filesystem, packages, the agent."""

from collections.abc import Iterable, Sequence

from hostmesh_lab.filesystems import agent_layer, images, lab_image, libc_image, package_layer


def ensure(
    suite: str,
    package_sets: Iterable[Sequence[str]],
    say: images.Say,
    *,
    agent: bool,
    libcs: Iterable[str] = (),
) -> tuple[list[str], str]:
    """Make everything that is not cached yet; the layers without packages, and Docker's image.

    Args:
        suite: Debian's release.
        package_sets: The packages of each machine that has some.
        say: Gets a line where something has to be made.
        agent: The lab is nothing without the agent's environment.
        libcs: Docker images beside `lab`.
    """
    image = images.ensure(suite, say)
    layers = [str(image.rootfs)]
    if agent or agent_layer.lock_file().is_file():
        layers.insert(0, str(agent_layer.ensure(image, say)))
    for packages in package_sets:
        package_layer.ensure(image, packages, say)
    libc_image.ensure(image, libcs, say)
    return layers, str(lab_image.ensure(image.rootfs))


def with_packages(layers: Sequence[str], suite: str, packages: Sequence[str]) -> tuple[str, ...]:
    """Return the layers with these packages right above the root filesystem."""
    if not packages:
        return tuple(layers)
    added = package_layer.ensure(images.image_of(suite, layers), packages, lambda _: None)
    return (*layers[:-1], *map(str, added), layers[-1])
