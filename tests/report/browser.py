"""A headless Chromium, driven over a pipe by its DevTools protocol: no driver, no port, no library.

Chromium reads NUL-separated JSON from its file descriptor 3 and answers on 4. One page at a time.
"""

import base64
import contextlib
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--allow-file-access-from-files", "--remote-debugging-pipe",
)  # fmt: skip
_PATIENCE_S = 60.0


class BrowserError(RuntimeError):
    """The browser ended, was silent for a minute, or a script of a test failed."""


def find() -> str | None:
    """The path of a Chromium; None if there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@dataclass
class Browser:
    """One browser with one page.

    Args:
        command: Path of the browser.
    """

    command: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _number: int = 0
    _unread: bytes = b""

    def __enter__(self) -> Self:
        self._profile = tempfile.mkdtemp(prefix="browser-")
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        # Only 3 and 4 count, and either may be in the way of the other: both are moved high first.
        wiring = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        words = [self.command, *_SWITCHES, f"--user-data-dir={self._profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", wiring, "bash", str(to_read), str(to_write), *words],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._session: str | None = None
        target = self._tell("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._tell(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        del error
        self._session = None
        with contextlib.suppress(BrowserError, OSError):
            self._tell("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, path: Path, address: str = "", *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file in a window of that size, in that colour scheme, and wait until it has drawn itself."""
        self.complaints.clear()
        self.requests.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._tell("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._tell("Emulation.setEmulatedMedia", features=[scheme])
        self._tell("Page.navigate", url="about:blank")
        self._tell("Page.navigate", url=path.absolute().as_uri() + address)
        self.wait("document.documentElement?.dataset.ready")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        done = self._tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise BrowserError(f"{script}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of an expression once it is true."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            if value := self.run(script):
                return value
            time.sleep(0.02)
        raise BrowserError(f"{script}: was not true within {_PATIENCE_S:.0f} s; complaints: {self.complaints}")

    def press(self, key: str, code: int = 0) -> None:
        """Press and release one key: ``Tab``, ``Enter``, ``Escape``, ``ArrowRight``."""
        text = {"text": "\r"} if key == "Enter" else {}
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code or _KEY_CODES[key]}
        self._tell("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self._tell("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Enter text where the focus is."""
        self._tell("Input.insertText", text=text)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        options: dict[str, Any] = {"captureBeyondViewport": whole}
        if whole:
            size = self._tell("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self._tell("Page.captureScreenshot", format="png", **options)["data"]))

    def _tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return answer["result"]
            self._hear(answer)
        raise BrowserError(f"{method}: the browser ended")

    def _hear(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(parameters["args"]))
            case "Log.entryAdded":
                self.complaints.append(str(parameters["entry"]))
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case _:
                pass

    def _messages(self) -> Iterator[dict[str, Any]]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._from, selectors.EVENT_READ)
            while True:
                whole, separator, rest = self._unread.partition(b"\0")
                if separator:
                    self._unread = rest
                    yield json.loads(whole)
                    continue
                if not selector.select(_PATIENCE_S):
                    raise BrowserError(f"the browser was silent for {_PATIENCE_S:.0f} s")
                new = os.read(self._from, 1 << 20)
                if not new:
                    return
                self._unread += new


_KEY_CODES = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}
