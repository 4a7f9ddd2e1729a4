"""The report: one file that needs no network, tells nothing of the machine, and holds what was chosen and nothing else."""

import getpass
import os
import socket
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from made_up_runs import finish_made_up, rewrite_config

from robustft import html_report, side_by_side
from robustft.__main__ import main
from robustft.report_panels import PANELS, Part
from robustft.types import UserError

EVIL = "<img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """Collects what a browser would load, the text outside of scripts, headings and table cells."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.data_blocks: list[str] = []
        self.inside: list[str] = []
        self.cells: list[list[str]] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "poster", "srcset", "background") and value]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.inside.append("data" if dict(attrs).get("type") == "application/json" else tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag) -> None:
        while self.inside and self.inside.pop() not in (tag, "data"):
            pass

    def handle_data(self, data) -> None:
        where = self.inside[-1] if self.inside else ""
        if where == "data":
            self.data_blocks.append(data)
        elif where not in ("script", "style"):
            self.words.append(data)
        if where in ("td", "th"):
            self.cells[-1][-1] += data
        if where == "h2":
            self.headings[-1] += data


@pytest.fixture
def side(tmp_path: Path) -> side_by_side.SideBySide:
    runs = [finish_made_up(tmp_path, "ft", seed=seed, moments=True) for seed in (0, 1, 2)]
    runs += [finish_made_up(tmp_path, method, change=change) for method, change in (("fda", -0.02), ("zero_shot", 0.0))]
    return side_by_side.read_runs(runs, tmp_path)


@pytest.fixture
def hostile(tmp_path: Path) -> side_by_side.SideBySide:
    runs = [finish_made_up(tmp_path, method, change=change) for method, change in (("ft", -0.1), ("fda", -0.02))]
    rewrite_config(tmp_path, runs[0], method=EVIL, options={"note": f"</script>{EVIL}", "file": f"{tmp_path}/secret/name.txt"})
    rewrite_config(tmp_path, runs[1], method="=1+1")
    return side_by_side.read_runs(runs, tmp_path)


def report(side: side_by_side.SideBySide, *chosen: str) -> str:
    return html_report.make_report(side, chosen or tuple(PANELS), today=date(2026, 1, 2))


def test_report_loads_nothing(side: side_by_side.SideBySide) -> None:
    read = Reader(report(side))
    assert [link for link in read.links if not link.startswith(("#", "data:text/csv;"))] == []
    assert {"img", "iframe", "object", "embed", "link", "base", "form"}.isdisjoint(read.tags)
    assert not read.handlers
    assert read.tags.count("script") == len(read.data_blocks) + 2, "the library, our own lines, and a data block a chart"
    assert "default-src 'none'" in report(side)


def test_report_tells_nothing_of_the_machine(hostile: side_by_side.SideBySide, tmp_path: Path) -> None:
    text = report(hostile)
    own = text.replace(html_report.get_plotlyjs(), "")
    assert str(tmp_path) not in unquote(own) and str(Path(html_report.__file__).parent) not in own and os.path.expanduser("~/") not in own
    assert socket.gethostname() not in own
    shown = " ".join(Reader(text).words).split()
    assert getpass.getuser() not in shown
    assert "name.txt" in own, "the last part of a path may stay"


def test_every_chosen_panel_is_there_and_no_other(side: side_by_side.SideBySide) -> None:
    titles = {key: title for key, (title, _) in PANELS.items()}
    assert Reader(report(side)).headings == list(titles.values())
    for key, title in titles.items():
        read = Reader(report(side, key))
        assert read.headings == [title]
        others = [other for other in titles.values() if other != title]
        assert not [other for other in others if other in " ".join(read.words)]


def test_numbers_are_those_of_the_page(side: side_by_side.SideBySide) -> None:
    table = side.table()
    rows = Reader(report(side, "table")).cells
    assert rows[0] == list(table.columns)
    assert rows[1:] == [[str(cell) for cell in row] for row in table.to_numpy()]
    assert any("±" in cell for cell in rows[1])


def test_every_figure_says_what_it_rests_on(side: side_by_side.SideBySide) -> None:
    text = report(side, "planes", "loss", "drift", "forgetting", "distance", "alpha")
    read = Reader(text)
    charts = read.tags.count("figure")
    words = "\n".join(read.words)
    assert charts == len(read.data_blocks) >= 9
    assert words.count("How to read it: ") == charts
    assert words.count(side.badge()) == 1 + charts + words.count("Correlation of forgetting"), "the page, each chart, and the table that has no chart"
    assert words.count("Show as table") == charts and read.tags.count("table") >= charts
    assert "report of 2026-01-02" in words


def test_strangers_text_stays_text(hostile: side_by_side.SideBySide) -> None:
    text = report(hostile)
    read = Reader(text)
    assert "img" not in read.tags and not read.handlers
    assert EVIL in "".join(read.words)
    own = text.replace(html_report.get_plotlyjs(), "")
    assert own.count("</script>") == read.tags.count("script")
    for block in read.data_blocks:
        assert "<" not in block and "\\u003cimg" not in block, "a data block cannot end early, and a chart gets no markup"


def test_csv_of_the_report_holds_no_formula(hostile: side_by_side.SideBySide) -> None:
    link = next(link for link in Reader(report(hostile, "table")).links if link.startswith("data:text/csv"))
    lines = unquote(link.split(",", 1)[1]).splitlines()
    assert lines[0].startswith("method,task,seeds") and not any(line.startswith(("=", "+", "-", "@")) for line in lines)
    assert lines[2].startswith("'=1+1,")


def test_configs_and_commands_are_there(side: side_by_side.SideBySide) -> None:
    words = "".join(Reader(report(side, "configs")).words)
    assert words.count('"method": "ft"') == 3 and words.count("python -m robustft train") + words.count("# no command line") == 5
    for view in side.views:
        assert view.run_id in words and f"seed {view.config.seed}" in words
    versions = Reader(report(side, "versions")).cells
    assert {"robustft", "python", "torch", "plotly"} <= {row[0] for row in versions}


def test_unknown_panels_are_refused(side: side_by_side.SideBySide) -> None:
    with pytest.raises(UserError, match="no panel 'x'; choose among verdict, table"):
        report(side, "x")
    with pytest.raises(UserError, match="no panel is chosen"):
        html_report.make_report(side, ())


def test_runs_without_steps_held_out_tasks_or_curve_make_a_report(tmp_path: Path) -> None:
    run = finish_made_up(tmp_path, "zero_shot", change=0.0)
    (tmp_path / "runs" / run / "wise.json").unlink()
    words = " ".join(Reader(report(side_by_side.read_runs([run], tmp_path))).words)
    assert "no loss curve" in words and "no curve of drift" in words and "No setting but the seed differs" in words and "Nothing can be ranked" in words


def test_command_writes_the_same_report_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [finish_made_up(tmp_path, method) for method in ("ft", "fda")]
    out = tmp_path / "report.html"
    argv = ["report", *runs, "--out", str(out), "--runs-dir", str(tmp_path), "--panels", "table, versions"]
    assert main(argv) == 0
    side = side_by_side.read_runs(runs, tmp_path)
    assert out.read_text(encoding="utf-8") == html_report.make_report(side, ("table", "versions"))
    assert main(argv) == 2 and "is there already" in capsys.readouterr().err
    assert main(["report", runs[0], "--out", str(tmp_path / "no" / "report.html"), "--runs-dir", str(tmp_path)]) == 2
    assert "does not exist; make it" in capsys.readouterr().err


def test_panel_without_chart_needs_no_library() -> None:
    text = html_report.render({"Words": [Part(text="a < b")]}, "t", "b")
    assert len(text) < 20_000 and "a &lt; b" in text


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.timeout(180)
def test_report_draws_itself_without_a_network(browser, hostile: side_by_side.SideBySide, tmp_path: Path) -> None:
    out = html_report.write_report(report(hostile), tmp_path / "report.html")
    for width, scheme in ((1280, "light"), (400, "dark")):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_offline(True)
        page, troubles = context.new_page(), []
        page.on("pageerror", lambda error, troubles=troubles: troubles.append(str(error)))
        page.on("console", lambda line, troubles=troubles: troubles.append(line.text) if line.type in ("error", "warning") else None)
        page.on("dialog", lambda dialog, troubles=troubles: (troubles.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda asked, troubles=troubles: None if asked.url.startswith(("file:", "data:", "blob:")) else troubles.append(asked.url))
        page.goto(out.as_uri())
        charts = page.locator(".chart").count()
        page.locator(".chart.js-plotly-plot .cartesianlayer .subplot.xy").nth(charts - 1).wait_for(state="attached", timeout=60_000)
        assert charts >= 9
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("summary").first.click()
        assert page.locator("details[open] table").first.is_visible()
        with page.expect_download() as saved:
            page.locator("a[download]").first.click()
        assert saved.value.suggested_filename == "table.csv"
        assert not troubles
        context.close()
