"""Take the screenshots of docs/ui.md: ``python -m tests.browser.pictures``.

Takes Debian's fonts-inter, and pngquant to make them small.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.browser.chromium import chromium
from tests.browser.conftest import SHOWN
from tests.unit.daemon.ui.troubled import with_problems

__all__ = ["main"]

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
PICTURES = (
    ("ui-light.png", 6, "light", "overview", 1180),
    ("ui-dark.png", 6, "dark", "overview", 1180),
    ("ui-300-hosts.png", 300, "light", "overview", 1100),
    ("ui-times.png", 6, "dark", "latency", 640),
)


def main() -> None:
    """Write the pictures."""
    FOLDER.mkdir(exist_ok=True)
    with chromium() as browser:
        for name, hosts, scheme, view, height in PICTURES:
            agent = with_problems(hosts)
            if hosts > 6:
                agent.conditions = []
            server = agent.serve()
            browser.size(1280, height)
            browser.scheme(scheme)
            browser.open(f"http://127.0.0.1:{server.port}/ui#/overview")
            browser.until(SHOWN, hosts)
            browser.until("return data.sections.checks && data.sections.containers")
            browser.run("location.hash = '/' + arguments[0]", view)
            browser.until("return !document.getElementById('view-' + arguments[0]).hidden", view)
            browser.screenshot(FOLDER / name)
            quantize = ["pngquant", "--force", "--speed=1", "--ext=.png", "64", str(FOLDER / name)]
            subprocess.run(quantize, check=True)
            browser.open("about:blank")
            server.stop()


if __name__ == "__main__":
    main()
