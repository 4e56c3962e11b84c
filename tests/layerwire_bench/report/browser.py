"""A headless Chromium, spoken to over its debugging pipe: pages opened at a width, measured and printed.

It knows the protocol's few messages that tests need; nothing of the pages.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Self

FLAGS = (
    "--headless",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever a page asks for, nothing leaves this machine
    "--remote-debugging-pipe",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
FIRST_FREE = 10  # descriptors 3 and 4 are to be the pipe's


def found() -> str | None:
    """The program, where there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page in a process of its own; `with` ends it."""

    def __init__(self, profile: Path) -> None:
        ours, theirs = [], []
        for reads in (True, False):
            pipe = os.pipe()
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for end in pipe]
            for end in pipe:
                os.close(end)
            theirs.append(ends[0] if reads else ends[1])
            ours.append(ends[1] if reads else ends[0])
        command = ["bash", "-c", f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}', "bash"]
        self._process = subprocess.Popen(
            [*command, found(), *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in theirs:
            os.close(end)
        self._out, self._in = os.fdopen(ours[0], "wb"), os.fdopen(ours[1], "rb")
        self._buffer, self._last, self._session = b"", 0, None
        self.requests: list[str] = []
        self.messages: list[str] = []

    def __enter__(self) -> Self:
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._out.close()
        self._in.close()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers; what it tells meanwhile is noted."""
        self._last += 1
        sent: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session is not None:
            sent["sessionId"] = self._session
        self._out.write(json.dumps(sent).encode() + b"\0")
        self._out.flush()
        while True:
            told = self._told()
            if told.get("id") == self._last:
                assert "error" not in told, told
                return told["result"]

    def wait_for(self, event: str) -> None:
        """Until the browser tells of it."""
        while self._told().get("method") != event:
            pass

    def _told(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._in.fileno(), 1 << 20)
            assert more, "the browser went away"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        told = json.loads(message)
        if told.get("method") == "Network.requestWillBeSent":
            self.requests.append(told["params"]["request"]["url"])
        if told.get("method") in {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}:
            self.messages.append(json.dumps(told["params"]))
        return told

    def open(self, page: Path, width: int, height: int) -> None:
        """The page in a window of that size; of a phone where it is narrow."""
        mobile = width < 600
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )
        self.requests.clear()
        self.messages.clear()
        self.ask("Page.navigate", url=page.as_uri())
        self.wait_for("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def print(self) -> bytes:
        """As PDF, on the paper that the page asks for."""
        return base64.b64decode(self.ask("Page.printToPDF", preferCSSPageSize=True, printBackground=False)["data"])
