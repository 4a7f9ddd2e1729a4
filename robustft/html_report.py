"""A report as one HTML file that needs no network: its charts draw themselves, and nothing in it tells whose machine made it."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from .report_panels import PANELS, Part, panels
from .side_by_side import SideBySide
from .types import UserError

COLORS = {
    "light": ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B87700", "#3A93C8", "#8A7A00", "#4D4D4D", "#7B3FA0", "#A6004B"],
    "dark": ["#4AA3DF", "#F0803C", "#2BC49A", "#DE9CC0", "#E69F00", "#8FCBF0", "#F0E442", "#B8C2C0", "#C3A6F0", "#FF8FB1"],
}
"""Colours of curves, those of the dashboard's two themes."""
_PATH = re.compile(r"(?<![\w<>.~/:])/(?:[^\s/'\",:]+/)+(?=[^\s/'\",:]+)")


def make_report(side: SideBySide, chosen: Iterable[str] = tuple(PANELS), picked: str | None = None, *, today: date | None = None) -> str:
    """Returns a report on some runs as the text of one HTML file.

    Args:
        side: The runs.
        chosen: Keys of `report_panels.PANELS`; their order there is the order of the report.
        picked: A run that is marked in the charts.
        today: Date of the report; None takes the clock's.

    Raises:
        UserError: If a panel is unknown or none is chosen.
    """
    return render(panels(side, chosen, picked), f"{side.task}: {len(side.means)} method{'s' if len(side.means) != 1 else ''}", side.badge(), today)


def render(content: Mapping[str, Sequence[Part]], title: str, badge: str, today: date | None = None) -> str:
    """Returns panels as one HTML page; every text is escaped, and paths of this machine are cut to their last part.

    Args:
        content: Parts of each panel by its title.
        title: Of the page.
        badge: What every figure rests on: task, runs, test images, seeds, date, version.
        today: Date of the report; None takes the clock's.
    """
    environment = Environment(loader=PackageLoader("robustft", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shown = {without_folders(name): [_private(part) for part in parts] for name, parts in content.items()}
    return environment.get_template("report.html.jinja").render(
        panels=shown,
        title=without_folders(title),
        badge=without_folders(badge),
        today=(today or date.today()).isoformat(),
        colors=COLORS,
        spec=_spec,
        plotly=Markup(get_plotlyjs()),  # the library's own text, the only one that is not escaped
    )


def without_folders(text: str) -> str:
    """Cuts the folders off every absolute path in a text.

    Example:
        >>> without_folders("read /home/ada/runs/a.json, step 3/4")
        'read .../a.json, step 3/4'
    """
    return _PATH.sub(".../", text)


def _private(part: Part) -> Part:
    """Returns a part without this machine's folders."""
    table = None if part.table is None else part.table.map(lambda cell: without_folders(str(cell))).rename(columns=lambda name: without_folders(str(name)))
    texts = {key: without_folders(getattr(part, key)) for key in ("title", "text", "code", "read", "csv")}
    return replace(part, table=table, **texts)


def _spec(part: Part) -> dict[str, Any]:
    """Returns what a chart needs in the browser: traces and layout, without the library's own look."""
    assert part.figure is not None
    raw = json.loads(part.figure.to_json())
    raw["layout"].pop("template", None)
    return {"data": _without_folders_inside(raw["data"]), "layout": _without_folders_inside(raw["layout"])}


def _without_folders_inside(value: Any) -> Any:
    """Cuts folders off in every text of a JSON value but packed numbers, whose letters mean nothing."""
    if isinstance(value, dict):
        return {key: own if key == "bdata" else _without_folders_inside(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_without_folders_inside(own) for own in value]
    return without_folders(value) if isinstance(value, str) else value


def write_report(text: str, out: Path) -> Path:
    """Writes a report to a new file; what is there already is left alone.

    Raises:
        UserError: If the file exists, or its folder does not.
    """
    if not out.parent.is_dir():
        raise UserError(f"the folder {str(out.parent)!r} does not exist; make it, or give another --out.")
    try:
        with out.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise UserError(f"{str(out)!r} is there already; give another --out, or remove it.") from None
    return out
