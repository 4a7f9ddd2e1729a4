"""A real Chromium and servers for it: what the journeys share."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from robustft.files import read_json
from robustft.jobs import is_alive
from robustft.pipeline import get_runs

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]  # no page needs WebGL
PAGES = ("", "Launch", "Runs", "Neighborhoods", "WiSE-FT", "Forgetting", "Compare")


class Server:
    """The dashboard in a process of its own, on a cache of its own."""

    def __init__(self, cache: Path, **environment: str):
        self.cache, self.environment = cache, environment
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        argv = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(self.port), "--server.headless", "true"]
        environment = {**os.environ, "ROBUSTFT_CACHE": str(self.cache), "ROBUSTFT_MAP_WORKER": "on", **self.environment}
        with (self.cache / "server.log").open("ab") as log:
            self.process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self.answers, "the server answers", 120)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url()}_stcore/health", timeout=2) as reply:
                return reply.read() == b"ok"
        except OSError:
            return False

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Ends the server, and the process that draws maps, which would wait for another ten minutes."""
        self.kill()
        worker = read_json(self.cache / "maps" / "worker.json")
        if worker is not None and is_alive(worker["pid"], worker["process_started"]):
            os.kill(worker["pid"], signal.SIGTERM)

    def url(self, page: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/{page}"

    def states(self) -> dict[str, str]:
        return {view.run_id: view.state for view in get_runs(self.cache)}


class Visitor:
    """A browser window with nobody's past, that notes whatever goes wrong in it."""

    def __init__(self, browser, server: Server, **options):
        self.context = browser.new_context(viewport={"width": 1280, "height": 1200}, accept_downloads=True, **options)
        self.page, self.server, self.troubles = self.context.new_page(), server, []
        own = (server.url(), f"ws://127.0.0.1:{server.port}", "data:", "blob:")
        self.page.on("pageerror", lambda error: self.troubles.append(f"page error: {error}"))
        self.page.on("console", lambda message: self._note(message))
        self.page.on("request", lambda request: None if request.url.startswith(own) else self.troubles.append(f"left this machine: {request.url}"))
        self.page.on("response", lambda reply: self.troubles.append(f"{reply.status}: {reply.url}") if self._is_failure(reply) else None)

    def _note(self, message) -> None:
        # The text of a failed request names no address; `response` does.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.troubles.append(f"console: {message.text}")

    def _is_failure(self, reply) -> bool:
        # Below a page Streamlit first asks whether the server stands there, and then goes one up.
        is_search = any(f"/{name}/_stcore/" in reply.url for name in PAGES[1:])
        return reply.status >= 400 and not is_search

    def go(self, address: str = "") -> None:
        self.page.goto(self.server.url(address), timeout=90_000)
        self.settle()

    def settle(self) -> None:
        """Waits until the page's script has run."""
        self.page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=90_000)
        self.page.wait_for_timeout(400)

    def text(self) -> str:
        return self.page.locator('[data-testid="stMain"]').inner_text()

    def sees(self, words: str, seconds: float = 60) -> None:
        self.page.get_by_text(words).first.wait_for(timeout=1000 * seconds)

    def check(self, name: str = "") -> None:
        """Fails if anything went wrong so far."""
        assert self.page.locator('[data-testid="stException"]').count() == 0, name
        assert not self.troubles, f"{name}: {self.troubles}"


def wait_until(claim, words: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if claim():
            return
        time.sleep(0.5)
    raise AssertionError(f"waited {seconds:.0f} s in vain: {words}")
