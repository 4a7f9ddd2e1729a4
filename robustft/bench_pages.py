"""How long a person waits for pages: a real browser on a server of its own, over a made-up run of 5,000 samples and a store of 500 runs.

What is timed ends with the last change of the page, as the browser sees it; a change that is not followed by another for
half a second is the last one.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from . import jobs, store
from .bench_measures import clouds
from .bench_run import write_large_run, write_many_runs
from .types import UserError

TIMES = 5
SAMPLES, RUNS = 5_000, 500
PAGES = ("Neighborhoods", "WiSE-FT", "Forgetting", "Compare", "Runs")
ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking")  # no page needs WebGL
WATCH = """
window.lastChange = 0;
const what = {subtree: true, childList: true, attributes: true, characterData: true};
new MutationObserver(() => { window.lastChange = performance.now(); }).observe(document, what);
"""
QUIET = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  const busy = !app || app.dataset.testScriptState !== 'notRunning' || document.querySelector('[data-testid="stSkeleton"], [data-testid="stSpinner"]');
  return !busy && performance.now() - window.lastChange > 500;
}"""
# From now on: when the pointer last drew, when it was let go, and when the right half of the map last changed.
LOOK = """() => {
  addEventListener('pointermove', event => { if (event.buttons) window.drawn = performance.now(); }, true);
  addEventListener('pointerup', () => { window.letGo = performance.now(); }, true);
  const layers = [...document.querySelectorAll('[data-testid="stEChartsChart"] canvas')];
  const pens = layers.map(canvas => canvas.getContext('2d', {willReadFrequently: true}));
  let last = null;
  const look = () => {
    let sum = 0;
    for (const [i, pen] of pens.entries()) {
      const canvas = layers[i];
      const pixels = pen.getImageData(canvas.width * 0.45, canvas.height * 0.2, canvas.width * 0.35, canvas.height * 0.7).data;
      for (let k = 0; k < pixels.length; k += 16) sum = (sum * 31 + pixels[k]) | 0;
    }
    if (last !== null && sum !== last) window.marked = performance.now();
    last = sum;
    requestAnimationFrame(look);
  };
  look();
}"""
Row = dict[str, Any]


def page_rows(report: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """Times pages in headless Chromium; medians of five.

    Args:
        report: Receives each row as soon as it is there.

    Raises:
        UserError: If Playwright or Chromium is not installed; says how to get them.
    """
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None or find_spec("playwright") is None:
        raise UserError("timing pages needs Chromium and Playwright: apt-get install chromium; pip install -r tests/requirements.txt.")
    from playwright.sync_api import sync_playwright

    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder)
        run_id = write_large_run(root, *clouds(SAMPLES, 48))
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        for row in (*_large_run_rows(browser, root, run_id), *_many_runs_rows(browser, root)):
            report(row)
            rows.append(row)
        browser.close()
    return rows


# --- what is timed ----------------------------------------------------------------------------------------------------


def _large_run_rows(browser: Any, root: Path, run_id: str) -> Iterator[Row]:
    with _server(root) as (url, _):
        for name in PAGES:
            first, *warm = _visits(browser, f"{url}/{name}?run={run_id}")
            yield {"name": f"{name} of a run with {SAMPLES:,} samples, first", "seconds": first, "pairs": 1, "most": 8.0}
            yield _row(f"{name} of a run with {SAMPLES:,} samples, warm", warm, 3.0)
        yield _row("step of the alpha slider to charts updated", _slider_steps(browser, f"{url}/WiSE-FT?run={run_id}"), 0.4)
        marked, told = zip(*[_lasso(browser, f"{url}/Neighborhoods?run={run_id}") for _ in range(TIMES)], strict=True)
        yield _row("lasso of about 1,000 points to the other side marked", marked, 0.15)
        yield _row("lasso of about 1,000 points to tables updated", told, 1.0)
        yield _row(f"recolouring the map at {SAMPLES:,} points, selection kept", _recolours(browser, f"{url}/Neighborhoods?run={run_id}"), 1.0)


def _many_runs_rows(browser: Any, root: Path) -> Iterator[Row]:
    names = write_many_runs(root, RUNS)
    with _server(root) as (url, process):
        yield _row(f"Runs page with {RUNS} runs, warm", _visits(browser, f"{url}/Runs")[1:], 2.0)
        jobs.submit(root, names[0], [sys.executable, "-c", ""], folder=store.run_folder(names[0], root))  # something waits, so the page refreshes
        page = _page(browser, f"{url}/Runs")
        page.wait_for_timeout(6000)
        before, begin = sum(process.cpu_times()[:2]), time.monotonic()
        page.wait_for_timeout(20_000)
        share = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - begin)
        page.context.close()
        yield {"name": f"refreshing Runs with {RUNS} runs, share of a core", "share": share, "pairs": 1, "most": 0.05}


def _row(name: str, seconds: Any, most: float) -> Row:
    return {"name": name, "seconds": statistics.median(seconds), "pairs": len(seconds), "most": most}


def _visits(browser: Any, url: str) -> list[float]:
    """Returns the seconds from navigation to the last change of a page: the first time in a fresh browser, then in the same one."""
    page, seconds = _page(browser, url), []
    for _ in range(TIMES):
        seconds.append(float(page.evaluate("window.lastChange")) / 1000)
        page.goto(url, timeout=90_000)
        _settle(page)
    seconds.append(float(page.evaluate("window.lastChange")) / 1000)
    page.context.close()
    return seconds


def _slider_steps(browser: Any, url: str) -> list[float]:
    page = _page(browser, url)
    page.get_by_role("slider").last.focus()
    page.keyboard.press("ArrowLeft")  # the first step draws what was not needed before
    _settle(page)
    keys = ("ArrowLeft", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowRight")
    steps = [_timed(page, partial(page.keyboard.press, key)) for key in keys]
    page.context.close()
    return steps


def _recolours(browser: Any, url: str) -> list[float]:
    page = _page(browser, url)
    _drag(page)
    _settle(page)
    buttons = page.locator(".st-key-colour")
    names = ("neighbours kept", "nothing", "class", "neighbours kept", "class")
    seconds = [_timed(page, buttons.get_by_text(name, exact=True).click) for name in names]
    if page.get_by_text("Selection:").count() != 1:
        raise RuntimeError("the selection was lost by recolouring")
    page.context.close()
    return seconds


def _lasso(browser: Any, url: str) -> tuple[float, float]:
    """Returns the seconds from the end of a rectangle to the other map marked, and to the table of the selection."""
    page = _page(browser, url)
    page.evaluate(LOOK)
    _drag(page)
    page.get_by_text("Selection:").wait_for(timeout=10_000)
    _settle(page)
    drawn, marked, let_go, told = (page.evaluate(f"window.{name}") for name in ("drawn", "marked", "letGo", "lastChange"))
    page.context.close()
    return float(marked - drawn) / 1000, float(told - let_go) / 1000


def _drag(page: Any) -> None:
    """Draws a rectangle over about a fifth of the points of the left map."""
    box = page.locator('[data-testid="stEChartsChart"]').bounding_box()
    page.mouse.click(box["x"] + 56, box["y"] + 22)  # a corner of the toolbox's rectangle: its middle is hollow
    left, top = box["x"] + 0.03 * box["width"], box["y"] + 84
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + 0.08 * box["width"], top + 100, steps=2)
    page.mouse.move(left + 0.14 * box["width"], top + 376, steps=2)
    page.mouse.up()


def _timed(page: Any, action: Callable[[], None]) -> float:
    """Returns the seconds from an action to the last change that it made."""
    begin = page.evaluate("performance.now()")
    action()
    _settle(page)
    return float(page.evaluate("window.lastChange") - begin) / 1000


# --- server and browser -----------------------------------------------------------------------------------------------


def _page(browser: Any, url: str) -> Any:
    page = browser.new_context(viewport={"width": 1280, "height": 1200}).new_page()
    page.add_init_script(WATCH)
    page.goto(url, timeout=90_000)
    _settle(page)
    return page


def _settle(page: Any) -> None:
    page.wait_for_function(QUIET, timeout=90_000, polling=50)


@contextmanager
def _server(root: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Runs the dashboard on a free port of this machine; yields its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.address", "127.0.0.1", "--server.port", str(port), "--server.headless", "true"]
    environment = {**os.environ, "ROBUSTFT_CACHE": str(root), "ROBUSTFT_MAP_WORKER": "off"}
    process = subprocess.Popen(
        argv, cwd=Path(__file__).parent.parent, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if _answers(url):
                break
            time.sleep(0.25)
        yield url, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
