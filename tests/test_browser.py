"""The main journeys in a real Chromium: launch and watch, explore, take home, share; on small real runs and on the recorded demo."""

import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import PAGES, Server, Visitor, wait_until

from robustft import recorded
from robustft.moments import get_moments
from robustft.pipeline import get_wise
from robustft.store import list_runs, run_id_of
from robustft.study import STUDIES

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
PATIENCE = 400.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dashboard with nothing in it yet."""
    made = Server(tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The recorded demo, as `make demo` shows it."""
    cache = recorded.unpack(recorded.DEMO, tmp_path_factory.mktemp("demo") / "cache")
    made = Server(cache, ROBUSTFT_READ_ONLY="1", ROBUSTFT_MAP_WORKER="off")
    yield made
    made.close()


@pytest.fixture
def visitor(browser, server: Server) -> Iterator[Visitor]:
    made = Visitor(browser, server)
    yield made
    made.context.close()


@pytest.fixture
def guest(browser, demo: Server) -> Iterator[Visitor]:
    made = Visitor(browser, demo)
    yield made
    made.context.close()


def run_of(server: Server, method: str) -> str:
    return next(record.run_id for record in list_runs(root=server.cache) if record.config.method == method)


# --- launch and watch -------------------------------------------------------------------------------------------------


def test_launch_watch_cancel_resume(visitor: Visitor, server: Server) -> None:
    page = visitor.page
    visitor.go("Launch?launch.task=food&launch.method=ft&ft.steps=60&launch.held_out.food=digits")
    page.get_by_role("button", name="Start", exact=True).click()
    visitor.sees("Open it on Runs")
    (run_id,) = server.states()
    visitor.go(f"Runs?run={run_id}")
    wait_until(lambda: re.search(r"step \d+ of 60", visitor.text()), "training shows its steps", PATIENCE)
    before = visitor.text()
    wait_until(lambda: visitor.text() != before, "progress moves with nobody pressing anything", 60)
    page.reload()  # in mid-run: nothing is lost
    visitor.settle()
    page.get_by_role("button", name="Cancel", exact=True).click()
    wait_until(lambda: server.states()[run_id] == "stopped", "the run is stopped", 90)
    visitor.sees("Stopped.")
    page.get_by_role("button", name="Resume", exact=True).first.click()
    wait_until(lambda: server.states()[run_id] in ("running", "finished"), "the run goes on", 60)
    server.kill()  # the job does not notice
    time.sleep(1)
    server.start()
    wait_until(lambda: server.states()[run_id] == "finished", "the run finishes", PATIENCE)
    visitor.go(f"Runs?run={run_id}")
    visitor.sees("Look closer:")
    killed = ("ERR_CONNECTION", "WebSocket", "disconnected")  # what a browser says while its server is dead
    visitor.troubles = [line for line in visitor.troubles if not any(word in line for word in killed)]
    visitor.check("Runs")


def test_slider_to_a_model_that_open_clip_loads(visitor: Visitor, server: Server, tmp_path: Path) -> None:
    import open_clip

    run_id = run_of(server, "ft")
    visitor.go(f"WiSE-FT?run={run_id}")
    page = visitor.page
    page.get_by_role("slider").last.focus()
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    visitor.settle()
    wait_until(lambda: "alpha=0.3" in page.url, "the slider stands in the address", 30)
    page.get_by_role("button", name="Prepare alpha 0.3").click()
    ready = page.get_by_role("button", name=re.compile("Download alpha 0.3"))
    ready.wait_for(timeout=120_000)
    with page.expect_download() as saved:
        ready.click()
    with zipfile.ZipFile(saved.value.path()) as archive:
        archive.extractall(tmp_path)
    folder = next(path.parent for path in tmp_path.rglob("open_clip_config.json"))
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}", require_pretrained=True)
    assert sum(p.numel() for p in model.parameters()) > 1e6
    visitor.check("WiSE-FT")


def test_demo_study_starts_with_one_click_and_can_be_cancelled(visitor: Visitor, server: Server) -> None:
    page, names = visitor.page, [run_id_of(config) for config in STUDIES["demo"].configs()]
    visitor.go()
    page.get_by_role("button", name="Run the demo study").click()
    visitor.sees("of 6 runs finished")
    assert page.get_by_role("button", name="Run the demo study").count() == 0, "a second press cannot start it twice"
    wait_until(lambda: "running" in [server.states().get(name) for name in names], "the first run starts", 60)
    page.get_by_role("button", name="Cancel the rest").click()
    wait_until(lambda: not {"queued", "running", "stopping"} & set(server.states().values()), "all are stopped", 120)
    visitor.check("Home")


# --- explore ----------------------------------------------------------------------------------------------------------


def test_explore_lasso_inspect_follow_a_neighbour(guest: Visitor, demo: Server) -> None:
    page = guest.page
    guest.go(f"Neighborhoods?run={run_of(demo, 'ft')}")
    chart = page.get_by_test_id("stEChartsChart")
    box = chart.bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 250)
    for dx in range(0, 200, 6):  # a point under the pointer shows its picture
        page.mouse.move(box["x"] + 60 + dx, box["y"] + 270)
        if page.locator("img[src*='thumb/']").count():
            break
    picture = page.locator("img[src*='thumb/']").first
    wait_until(lambda: picture.evaluate("image => image.complete && image.naturalWidth") == 64, "the thumbnail is drawn", 20)

    page.mouse.click(box["x"] + 56, box["y"] + 22)  # a corner of the toolbox's rectangle
    page.mouse.move(box["x"] + 40, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 200, steps=5)
    page.mouse.move(box["x"] + 300, box["y"] + 440, steps=5)
    page.mouse.up()
    guest.sees("Selection:")
    guest.settle()
    wait_until(lambda: "selected=" in page.url, "the selection stands in the address", 20)
    page.get_by_text("neighbours kept", exact=True).first.click()  # recoloured, the selection stays
    guest.settle()
    assert page.get_by_text("Selection:").count() == 1

    page.get_by_text(re.compile(r"Choose among the \d+ selected samples")).click()
    guest.settle()
    page.get_by_role("button", name=re.compile(r"→ \d+")).last.click()  # the gallery
    guest.sees("kept", 20)
    guest.settle()
    sample = page.get_by_role("spinbutton", name="Sample").input_value()
    follow = page.locator("[class*='st-key-fate-gained']").get_by_role("button", name=re.compile("→")).first
    wanted = follow.inner_text().split()[-1]
    follow.click()
    guest.settle()
    wait_until(lambda: page.get_by_role("spinbutton", name="Sample").input_value() == wanted, "the neighbour is the sample now", 20)
    wait_until(lambda: f"sample={wanted}" in page.url, "the sample stands in the address", 20)
    assert wanted != sample
    page.go_back()
    guest.settle()
    guest.check("Neighborhoods")


def test_forgetting_dot_leads_to_its_neighbourhood(guest: Visitor) -> None:
    page = guest.page
    guest.go("Forgetting")
    page.wait_for_timeout(3000)  # the charts above it are drawn, and it stays where it is
    dots = page.get_by_test_id("stPlotlyChart").last.locator("path.point")
    dots.last.evaluate("mark => mark.scrollIntoView({block: 'center'})")
    page.wait_for_timeout(500)
    dot = dots.last.bounding_box()
    page.mouse.click(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
    page.wait_for_url(re.compile("Neighborhoods"), timeout=30_000)
    guest.settle()
    guest.sees("test samples of")
    assert "run=" in page.url and "task=" in page.url
    guest.check("Forgetting")


def test_report_is_made_and_opens_offline(guest: Visitor, browser, tmp_path: Path) -> None:
    guest.go("Compare")
    make = guest.page.get_by_role("button", name="Make the report")
    with guest.page.expect_download(timeout=120_000) as saved:
        make.click()
    out = tmp_path / "report.html"
    saved.value.save_as(out)
    guest.check("Compare")
    context = browser.new_context()
    context.set_offline(True)
    offline, asked = context.new_page(), []
    offline.on("request", lambda request: asked.append(request.url) if not request.url.startswith(("file:", "data:", "blob:")) else None)
    offline.goto(out.as_uri())
    offline.locator(".js-plotly-plot .subplot").first.wait_for(state="attached", timeout=60_000)
    assert not asked and "ldifs" in offline.inner_text("body")
    context.close()


# --- share ------------------------------------------------------------------------------------------------------------


def shared_addresses(server: Server) -> dict[str, tuple[str, ...]]:
    """Returns addresses, and words that must be on the page that they bring back."""
    run_id = run_of(server, "ldifs")
    row = get_moments(run_id, server.cache)[0]
    moment, kept = row["moment"], f"on average {100 * row['kept']:.0f} %"
    accuracy = next(f"{100 * point['id_accuracy']:.1f} %" for point in get_wise(run_id, server.cache) if point["alpha"] == 0.3)
    return {
        f"Neighborhoods?run={run_id}&task=digits&domain=optical&k=25&sample=7": ("sample 7", "of digits (optical)", "the nearest 10 of 25"),
        f"Neighborhoods?run={run_id}&moment={moment}&colour=neighbours+kept": ("test samples of food (color)", kept),
        f"WiSE-FT?run={run_id}&alpha=0.3": (accuracy,),
        f"Runs?run={run_id}": (run_id,),
        f"Compare?picked={run_id}": ("ldifs",),
        "Forgetting?metric=delta_lp": ("linear probe",),
        "?step=3": ("3 · ",),
    }


def test_every_shared_address_is_restored_in_a_fresh_browser(browser, demo: Server) -> None:
    for address, expected in shared_addresses(demo).items():
        guest = Visitor(browser, demo)
        guest.go(address)
        for words in expected:
            wait_until(lambda guest=guest, words=words: words in guest.text(), f"{address} brings back {words!r}", 30)
        for part in address.partition("?")[2].split("&"):
            name = part.partition("=")[0]
            assert name in guest.page.url or name in ("domain", "colour"), f"{address}: {name} is gone from {guest.page.url}"
        guest.check(address)
        guest.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_pages_stand_narrow_and_in_the_dark(browser, demo: Server, width: int, scheme: str) -> None:
    guest = Visitor(browser, demo, color_scheme=scheme)
    guest.page.set_viewport_size({"width": width, "height": 900})
    for name in PAGES:
        guest.go(name)
        wait_until(lambda: len(guest.text()) > 100, f"{name or 'Home'} says something", 30)
        assert guest.page.evaluate("document.documentElement.scrollWidth") <= width + 4, name
        guest.check(name)
    guest.context.close()
