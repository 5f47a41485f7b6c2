"""A step of the demo: containers of every host fetch pages from each other by name."""

from itertools import permutations

from hostmesh_lab.demo.stage import READY_S, WEB, Stage
from hostmesh_lab.wait import wait_until


def by_name(stage: Stage) -> None:
    """Fetch a page from the container of each other host by its name, and list the names."""
    hosts = stage.lab.hosts
    for name, peer in permutations(hosts, 2):
        url = f"http://{WEB}.{peer}/cgi-bin/hostname"
        wait_until(
            lambda name=name, url=url: hosts[name].fetch(url, container=WEB),  # type: ignore[misc]
            READY_S,
            f"the container of {name} to fetch {url}",
        )
    stage.note(f"{WEB}.host2 is a name on every host; so is that of every other container")
    first = stage.host("host1")
    stage.note(first.agentctl("names", f"{WEB}.*").stdout)
    stage.note(first.agentctl("resolve", f"{WEB}.host2", "--from", WEB).stdout)
