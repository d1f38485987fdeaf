"""A headless Chromium for tests, driven through chromedriver's WebDriver endpoint with the standard library alone."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--mute-audio"),
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015"}
KEYS |= {"home": "\ue011", "enter": "\ue007", "escape": "\ue00c"}


def is_installed() -> bool:
    """Whether the Debian packages `chromium` and `chromium-driver`, or their like, are there."""
    return bool(shutil.which("chromedriver") and _browser())


def _browser() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One window with a profile of its own in `folder`; a context manager."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.root = f"http://127.0.0.1:{port}"
        self.driver = subprocess.Popen(
            [shutil.which("chromedriver"), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        options = {
            "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900"],
            "binary": _browser(),
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = ""
        try:
            self._wait_for_driver()
            made = self._post("/session", {"capabilities": {"alwaysMatch": wanted}}, timeout=120)
            self.session = f"/session/{made['sessionId']}"
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        if self.session:
            self._call("DELETE", self.session, None)
        self.driver.terminate()
        self.driver.wait(120)

    def open(self, page: Path | str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file or an address into a view of the given size in CSS pixels."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])
        self._post(f"{self.session}/url", {"url": page if isinstance(page, str) else page.resolve().as_uri()})

    def run(self, script: str, *arguments):
        """The value that the body `script` returns; arguments[0], … are the arguments."""
        return self._post(f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, *arguments):
        """Run `script` until it returns something true; returns that. Only a page that never gets there takes long."""
        end = time.monotonic() + 60
        while not (value := self.run(script, *arguments)):
            assert time.monotonic() < end, f"still not: {script}"
            time.sleep(0.05)
        return value

    def click(self, selector: str) -> None:
        """Click an element, in the middle of the window: at its edge a bar of the page may lie over it."""
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        self._post(f"{self.session}/element/{self._find(selector)}/click", {})

    def press(self, selector: str, *keys: str) -> None:
        """Type keys (names of KEYS, or text) into an element."""
        text = "".join(KEYS.get(key, key) for key in keys)
        self._post(f"{self.session}/element/{self._find(selector)}/value", {"text": text})

    def messages(self) -> list[str]:
        """What the console has said since the last call: errors, warnings, logs."""
        return [entry["message"] for entry in self._post(f"{self.session}/se/log", {"type": "browser"})]

    def screenshot(self, path: Path, whole: bool = False) -> None:
        if whole:
            shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        else:
            shot = self._call("GET", f"{self.session}/screenshot", None)
        path.write_bytes(base64.b64decode(shot))

    def devtools(self, command: str, **parameters):
        return self._post(f"{self.session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _find(self, selector: str) -> str:
        return self._post(f"{self.session}/element", {"using": "css selector", "value": selector})[ELEMENT]

    def _post(self, path: str, body: dict, timeout: float = 60):
        return self._call("POST", path, body, timeout)

    def _call(self, method: str, path: str, body: dict | None, timeout: float = 60):
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, sent, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{path}: {json.load(error)['value']['message']}") from None

    def _wait_for_driver(self) -> None:
        end = time.monotonic() + 120  # a busy machine is slow to start it
        while self.driver.poll() is None and time.monotonic() < end:
            try:
                self._call("GET", "/status", None)
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("chromedriver did not start")
