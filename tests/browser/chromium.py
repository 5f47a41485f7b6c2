"""Debian's headless Chromium, driven by its chromedriver over WebDriver (W3C) and CDP."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.waiting import eventually

__all__ = ["Browser", "chromium"]

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--window-size=1440,900",
)
_DEADLINE_S = 60.0


class Browser:
    """One session of chromedriver.

    Args:
        port: Where chromedriver listens.
        profile: An empty folder.
    """

    def __init__(self, port: int, profile: Path) -> None:
        self._port = port
        self._path = "/session"
        options = {
            "binary": shutil.which("chromium"),
            "args": [*_FLAGS, f"--user-data-dir={profile}"],
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self._path += f"/{answer['sessionId']}"

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 # any JSON
        connection = HTTPConnection("127.0.0.1", self._port, timeout=_DEADLINE_S)
        with contextlib.closing(connection):
            connection.request(
                method, self._path + path, None if body is None else json.dumps(body)
            )
            answer = json.loads(connection.getresponse().read())["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{answer['error']}: {answer['message']}")
        return answer

    def open(self, url: str) -> None:
        """Load a page."""
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *args: object) -> Any:  # noqa: ANN401 # any JSON
        """Run a function's body in the page and return its result."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": args})

    def run_async(self, script: str, *args: object) -> Any:  # noqa: ANN401 # any JSON
        """Run a function's body that calls its last argument with the result."""
        return self._ask("POST", "/execute/async", {"script": script, "args": args})

    def cdp(self, command: str, **params: object) -> Any:  # noqa: ANN401 # any JSON
        """Send a command of the Chrome DevTools Protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def press(self, *keys: str) -> None:
        """Press keys one after the other, on what has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self._ask("POST", "/actions", {"actions": [source]})

    def until(self, script: str, *args: object, every_s: float = 0.05) -> Any:  # noqa: ANN401 # any JSON
        """Wait until a script's result is true, and return it."""
        return eventually(lambda: self.run(script, *args), _DEADLINE_S, every_s)

    def log(self) -> list[str]:
        """Return the console's new lines, errors of the policy included."""
        return [each["message"] for each in self._ask("POST", "/se/log", {"type": "browser"})]

    def scheme(self, name: str) -> None:
        """Prefer light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.cdp("Emulation.setEmulatedMedia", features=features)

    def size(self, width: int, height: int) -> None:
        """Set the size of the page."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        found = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End the browser."""
        self._ask("DELETE", "")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start chromedriver and a browser, and end both."""
    with (
        tempfile.TemporaryDirectory(prefix="chromium-") as profile,
        subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as driver,
    ):
        try:
            assert driver.stdout is not None
            started = (re.search(r"successfully on port (\d+)", line) for line in driver.stdout)
            port = next(int(found[1]) for found in started if found)
            browser = Browser(port, Path(profile))
            try:
                yield browser
            finally:
                browser.close()
        finally:
            driver.terminate()
