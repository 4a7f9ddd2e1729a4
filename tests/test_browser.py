"""The main journey in a real Chromium: start the demo study, reload, cancel one, kill the server, see the rest finish."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustft.files import read_json
from robustft.jobs import is_alive
from robustft.pipeline import get_runs
from robustft.store import run_id_of
from robustft.study import STUDIES

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking"]
PAGES = ("", "Launch", "Runs", "Neighborhoods", "WiSE-FT", "Forgetting", "Compare")
PATIENCE = 900.0

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if CHROMIUM is None or sync_playwright is None:
        message = "needs Chromium and playwright: apt-get install chromium; pip install -r tests/requirements.txt"
        if os.environ.get("ROBUSTFT_CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


class Server:
    """The dashboard in a process of its own, on a cache of its own."""

    def __init__(self, cache: Path):
        self.cache = cache
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        argv = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(self.port), "--server.headless", "true"]
        environment = {**os.environ, "ROBUSTFT_CACHE": str(self.cache), "ROBUSTFT_MAP_WORKER": "on"}
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

    def url(self, page: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/{page}"

    def states(self) -> dict[str, str]:
        return {view.run_id: view.state for view in get_runs(self.cache)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("cache"))
    yield made
    made.kill()
    worker = read_json(made.cache / "maps" / "worker.json")  # it would wait for another ten minutes
    if worker is not None and is_alive(worker["pid"], worker["process_started"]):
        os.kill(worker["pid"], signal.SIGTERM)


def wait_until(claim, words: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if claim():
            return
        time.sleep(0.5)
    raise AssertionError(f"waited {seconds:.0f} s in vain: {words}")


def settle(page) -> None:
    """Waits until a page's script has run."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=90_000)


def open_page(page, server: Server, name: str = "") -> None:
    page.goto(server.url(name), timeout=90_000)
    settle(page)


def text_of(page) -> str:
    return page.locator('[data-testid="stMain"]').inner_text()


def test_demo_study_from_one_click_to_every_page(browser, server: Server) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, troubles = context.new_page(), []
    own = (server.url(), f"ws://127.0.0.1:{server.port}", "data:", "blob:")
    page.on("pageerror", lambda error: troubles.append(f"page error: {error}"))
    page.on("request", lambda request: None if request.url.startswith(own) else troubles.append(request.url))
    names = [run_id_of(config) for config in STUDIES["demo"].configs()]

    open_page(page, server)
    page.get_by_role("button", name="Run the demo study").click()
    page.get_by_text("of 6 runs finished").wait_for(timeout=60_000)

    # Progress moves by itself, with nobody pressing anything.
    seen = set()
    wait_until(lambda: seen.add(text_of(page)) or len(seen) >= 4, "progress moves", 120)

    # A reload loses nothing, and a second press cannot start it twice: the button is gone.
    page.reload()
    settle(page)
    page.get_by_text("of 6 runs finished").wait_for(timeout=60_000)
    assert page.get_by_role("button", name="Run the demo study").count() == 0

    # Cancel one job on Runs, while it waits or runs.
    cancelled = names[-2]
    open_page(page, server, f"Runs?run={cancelled}")
    page.get_by_role("button", name="Cancel", exact=True).click()
    wait_until(lambda: server.states()[cancelled] == "stopped", "the cancelled run is stopped", 60)

    # Kill the web server in mid-study: the jobs do not notice.
    server.kill()
    time.sleep(3)
    server.start()

    wait_until(lambda: [server.states()[name] for name in names].count("finished") >= 2, "two runs finish", PATIENCE)
    assert server.states()[cancelled] == "stopped"

    # Enough to look at: cancel the rest from Home.
    open_page(page, server)
    page.get_by_role("button", name="Cancel the rest").click()
    wait_until(lambda: not {"queued", "running", "stopping"} & set(server.states().values()), "the rest is stopped", 120)
    open_page(page, server)
    page.get_by_text(f"{list(server.states().values()).count('finished')} of 6 runs finished").wait_for(timeout=60_000)

    # The UMAPs were asked for when the run ended, and are drawn by a process of their own.
    open_page(page, server, "Neighborhoods")
    page.get_by_text("2-D picture (UMAP) of 384 of 384 test samples").wait_for(timeout=120_000)

    for name in PAGES:
        open_page(page, server, name)
        page.wait_for_timeout(1500)
        assert page.locator('[data-testid="stException"]').count() == 0, name
        assert len(text_of(page)) > 100, name
    assert not troubles
    context.close()


def test_pages_stand_at_400_px_and_in_the_dark(browser, server: Server) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme="dark")
    page = context.new_page()
    for name in PAGES:
        open_page(page, server, name)
        page.wait_for_timeout(800)
        assert page.locator('[data-testid="stException"]').count() == 0, name
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 404, f"{name or 'Home'} is {width} px wide"
    context.close()
