"""What a lab's machines mount read-only: root filesystem, packages, the agent's environment."""

from collections.abc import Iterable, Sequence

from hostmesh_lab.filesystems import agentlayer, images, labimage, libcimage, packagelayer


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
    if agent or agentlayer.lock_file().is_file():
        layers.insert(0, str(agentlayer.ensure(image, say)))
    for packages in package_sets:
        packagelayer.ensure(image, packages, say)
    libcimage.ensure(image, libcs, say)
    return layers, str(labimage.ensure(image.rootfs))


def with_packages(layers: Sequence[str], suite: str, packages: Sequence[str]) -> tuple[str, ...]:
    """The layers with these packages right above the root filesystem."""
    if not packages:
        return tuple(layers)
    added = packagelayer.ensure(images.image_of(suite, layers), packages, lambda _: None)
    return (*layers[:-1], *map(str, added), layers[-1])
