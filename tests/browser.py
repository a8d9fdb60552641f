"""A real browser: chromium without a window, spoken to in its DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "no chromium here: apt-get install chromium"


class Browser:
    """One tab. Whatever it says on its console or asks the network for is kept.

    Attributes:
        events: All that it told without being asked, as (method, parameters).
    """

    def __init__(self) -> None:
        assert CHROMIUM is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu"]
        words += ["--remote-debugging-pipe", f"--user-data-dir={self._profile.name}"]
        words += ["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"]
        words += ["--host-resolver-rules=MAP * ~NOTFOUND", "about:blank"]
        # It reads from 3 and writes to 4.
        shell = f"exec {shlex.join(words)} 3<&{to_read} 4>&{to_write}"
        self._process = subprocess.Popen(
            ["bash", "-c", shell],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._number, self._buffer, self._session = 0, b"", None
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()

    def open(self, path: Path, width: int, *, dark: bool = False, media: str = "screen") -> None:
        """Shows a file in a window of a width; a narrow one is that of a phone."""
        self.events.clear()
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.ask("Page.navigate", url=path.resolve().as_uri())
        self._until(lambda: any(name == "Page.loadEventFired" for name, _ in self.events))

    def value(self, expression: str) -> Any:
        """What an expression is on the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path, height: int | None = None, top: int = 0) -> None:
        """Writes a picture of the whole page, or of `height` pixels of it."""
        width, whole = self.value("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": top, "width": width, "height": height or whole - top, "scale": 1}
        answer = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))

    def ask(self, method: str, **parameters: Any) -> Any:
        """The answer to a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        found: list[Any] = []

        def answered() -> bool:
            found.extend(a for a in self._answers if a["id"] == message["id"])
            return bool(found)

        self._answers: list[Any] = []
        self._until(answered)
        assert "error" not in found[0], found[0]
        return found[0]["result"]

    def _until(self, done: Any, seconds: float = 60) -> None:
        """Listens until something has happened."""
        deadline = time.monotonic() + seconds
        while not done():
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser is silent"
            new = os.read(self._read, 1 << 20)
            assert new, "the browser is gone"
            *messages, self._buffer = (self._buffer + new).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.append(message)
                else:
                    self.events.append((message["method"], message.get("params", {})))
