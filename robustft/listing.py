"""What can be chosen, as JSON rows: methods, presets, models, datasets, metrics, runs."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .methods import METHODS, method_params
from .pipeline import get_runs
from .presets import PRESETS
from .registry import Param, discover

METHOD_KEYS = ("title", "summary", "equation", "protects", "cost", "source", "trains", "task_loss", "regularizer", "average")


def rows_of(what: str, root: Path) -> list[dict[str, Any]]:
    """Returns all of one kind, each with its name and a summary.

    Args:
        what: ``methods``, ``presets``, ``runs``, ``models`` or a registry package.
        root: Cache folder, for runs.
    """
    if what == "methods":
        return [{"name": name, **{key: getattr(m, key) for key in METHOD_KEYS}, "parameters": _shown(method_params(name))} for name, m in METHODS.items()]
    if what == "presets":
        return [{"name": name, "summary": f"{p.title}: {p.note}", **asdict(p), "options": p.resolved()} for name, p in PRESETS.items()]
    if what == "runs":
        return [{"name": view.run_id, "summary": view.state, "scores": view.summary} for view in get_runs(root)]
    return [
        {"name": name, "summary": e.summary, "source": e.source, "parameters": _shown(e.params), "domains": list(e.declares("DOMAINS", ()))}
        for name, e in discover({"models": "backbones"}.get(what, what)).items()
    ]


def _shown(params: Iterable[Param]) -> list[dict[str, Any]]:
    return [{**asdict(p), "kind": p.kind.__name__, "allowed": p.allowed} for p in params]
