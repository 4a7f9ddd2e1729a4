"""Who may import whom, and what no file may do: read from the source, so that an import inside a function counts too."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "robustft"
FILES = sorted(PACKAGE.rglob("*.py"))
FRONT = [*sorted((ROOT / "pages").glob("*.py")), *ROOT.glob("app.py")]

# A room is a module or folder of robustft. Every room may import itself and `robustft.__version__`.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "types": set(),
    "seeds": set(),
    "files": {"types"},
    "devices": {"types"},
    "registry": {"types"},
    "world": {"types", "seeds"},
    "datasets": {"types", "registry", "seeds", "world"},
    "encoder": {"types"},
    "backbones": {"types", "registry", "encoder"},
    "probe": {"types", "seeds", "devices"},
    "heads": {"types", "encoder", "probe"},
    "features": {"types", "encoder"},
    "graph": {"types"},
    "trust": {"types"},
    "maps": {"types", "graph", "trust"},
    "map_requests": {"detached", "files", "jobs"},
    "map_worker": {"types", "files", "map_requests", "maps"},
    "sampling": {"types", "seeds"},
    "regularizers": {"types", "registry", "seeds", "graph"},
    "task_losses": {"types", "registry"},
    "tuning": {"types", "registry"},
    "averages": {"types", "registry"},
    "teacher": {"types", "heads"},
    "state": {"heads"},
    "drift": {"types", "registry", "seeds", "graph", "regularizers"},
    "metrics": {"types", "registry", "seeds", "graph"},
    "objective": {"types", "registry"},
    "interpolate": {"types", "seeds"},
    "train": {"types", "registry", "seeds", "encoder", "heads", "objective", "sampling", "state", "teacher"},
    "evaluate": {"types", "registry", "seeds", "encoder", "heads", "probe", "features", "graph", "interpolate", "intervals", "metrics", "drift", "robustness"},
    "resampling": {"types"},
    "trend": {"types", "resampling"},
    "otdd_settings": set(),
    "foretelling": {"types", "resampling"},
    "intervals": {"types", "seeds"},
    "ranking": {"types", "intervals"},
    "robustness": {"types"},
    "alphas": {"types"},
    "store": {"types", "files"},
    "notes": {"types", "files", "store"},
    "remembered": {"types", "store", "notes", "evaluate"},
    "failures": set(),
    "feature_cache": {"types", "files", "store"},
    "detached": set(),
    "jobs": {"supervisor", "detached"},
    "supervisor": {"jobs", "detached"},
    "slots": set(),
    "methods": {"types", "registry", "sampling", "train"},
    "presets": {"types", "methods"},
    "configs": {"types", "registry", "devices", "methods"},
    "selected": set(),
    "crossings": {"types"},
    "server": {"types", "store", "thumbnails"},
    "figures": {"types", "foretelling"},
    "ui": {
        "story",
        "alphas",
        "failures",
        "notes",
        "presets",
        "sweep",
        "crossings",
        "foretelling",
        "graph",
        "intervals",
        "moments",
        "samples",
        "selected",
        "store",
        "feature_cache",
        "preview",
        "configs",
        "devices",
        "doctor",
        "neighborhoods",
        "otdd_settings",
        "take_home",
        "trend",
        "types",
        "registry",
        "methods",
        "jobs",
        "study",
        "pipeline",
        "figures",
        "side_by_side",
        "report_panels",
        "html_report",
    },
    "pages": {
        "alphas",
        "failures",
        "notes",
        "sweep",
        "intervals",
        "configs",
        "presets",
        "devices",
        "doctor",
        "foretelling",
        "neighborhoods",
        "types",
        "registry",
        "methods",
        "study",
        "pipeline",
        "figures",
        "side_by_side",
        "report_panels",
        "ui",
    },
    "app": {"server", "ui"},
}
CORE = set(ALLOWED) - {"figures", "ui", "pages", "app"}
STEPS = {
    "sources",
    "analysis",
    "curve",
    "moments",
    "samples",
    "thumbnails",
    "recorded",
    "story",
    "demo_commands",
    "run",
    "neighborhoods",
    "preview",
    "pipeline",
    "estimate",
    "study",
    "sweep",
    "selection",
    "listing",
    "reports",
    "commands",
    "run_commands",
    "export",
    "take_home",
    "bench",
    "bench_measures",
    "bench_pages",
    "bench_run",
    "pretrain",
    "card",
    "doctor",
    "side_by_side",
    "report_panels",
    "html_report",
}  # they join core to store
ALLOWED |= {room: CORE | STEPS for room in (*STEPS, "__main__")}
ALLOWED |= {room: CORE | STEPS | {"figures"} for room in ("side_by_side", "report_panels", "html_report", "story")}  # a report is made of figures

OUTSIDE_ONLY = {  # rooms that stay light: beside the standard library they may import only these packages
    "jobs": {"psutil"},
    "supervisor": {"psutil"},
    "figures": {"numpy", "pandas", "plotly"},
}
OUTSIDE_NEVER = {"pages": {"torch"}, "app": {"torch"}}
STREAMLIT_ROOMS = {"ui", "pages", "app"}

VAGUE_NAMES = {"utils", "common", "helpers", "manager", "misc"}
MAX_LINES = 300
UNSAFE_CALLS = {"torch.load", "os.system", "os.popen"}
UNSAFE_FLAGS = {"shell", "allow_pickle", "unsafe_allow_html"}
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}


def room_of(module: str) -> str:
    """Names the room of a first-party module: ``robustft.drift.otdd`` lies in ``drift``."""
    parts = module.split(".")
    return parts[0] if parts[0] != "robustft" else parts[1] if len(parts) > 1 else "__init__"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def rooms_on_disk() -> set[str]:
    """Lists what ``from robustft import x`` can mean as a room and not as a name."""
    return {room_of(module_of(path)) for path in FILES}


def imports(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Yields line and absolute name of all that a module imports, as ``robustft.store`` or ``numpy``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*module.split(".")[: -node.level], *filter(None, [node.module])]) if node.level else node.module or ""
            rooms = rooms_on_disk() | set(ALLOWED) if base == "robustft" else set()
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}" if alias.name in rooms or base in {"pages", "torch", "os"} else base
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            if node.args and isinstance(node.args[0], ast.Constant):
                name = str(node.args[0].value)
                yield node.lineno, f"robustft{name}" if name.startswith(".") else name


def what_may(room: str) -> str:
    """Says what a room may import, or what it may not where that is shorter."""
    allowed = ALLOWED[room]
    return f"all rooms in the table but {sorted(set(ALLOWED) - allowed)}" if room in STEPS | {"__main__"} else str(sorted(allowed) or "nothing of ours")


def import_faults(source: str, module: str) -> list[str]:
    """Lists the imports of one module that its room may not make."""
    room, faults = room_of(module), []
    for line, name in imports(ast.parse(source), module):
        top = name.split(".")[0]
        if top in {"robustft", "pages", "app"}:
            target = room_of(name)
            mine = target == room and room not in {"pages", "app"}
            if not mine and target != "__init__" and target not in ALLOWED[room]:
                faults.append(f"{module}, line {line}: imports {name}; room '{room}' may import {what_may(room)}")
        elif top == "streamlit" and room not in STREAMLIT_ROOMS:
            faults.append(f"{module}, line {line}: imports streamlit; only {sorted(STREAMLIT_ROOMS)} may")
        elif top in OUTSIDE_NEVER.get(room, ()):
            faults.append(f"{module}, line {line}: imports {name}; room '{room}' must not: ask pipeline")
        elif room in OUTSIDE_ONLY and top not in sys.stdlib_module_names | OUTSIDE_ONLY[room]:
            faults.append(f"{module}, line {line}: imports {name}; room '{room}' may import the standard library and {sorted(OUTSIDE_ONLY[room])}")
    return list(dict.fromkeys(faults))


def unsafe_faults(source: str, module: str) -> list[str]:
    """Lists the calls, flags and modules that can run a stranger's code or text."""
    tree = ast.parse(source)
    found = [(line, name) for line, name in imports(tree, module) if name.split(".")[0] in UNSAFE_MODULES or name in UNSAFE_CALLS]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in UNSAFE_CALLS:
            found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.keyword) and node.arg in UNSAFE_FLAGS and ast.unparse(node.value) != "False":
            found.append((node.value.lineno, f"{node.arg}={ast.unparse(node.value)}"))
    return [f"{module}, line {line}: {what} is not safe; use safetensors, JSON, a list of arguments or plain Markdown" for line, what in found]


@pytest.mark.parametrize("path", [*FILES, *FRONT], ids=module_of)
def test_file_keeps_to_its_room(path: Path) -> None:
    module, source = module_of(path), path.read_text(encoding="utf-8")
    assert room_of(module) in ALLOWED, f"declare room '{room_of(module)}' in ALLOWED of {Path(__file__).name}, with what it may import"
    faults = import_faults(source, module) + unsafe_faults(source, module)
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_module_is_short_named_and_explained(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    lines = source.count("\n")
    assert lines <= MAX_LINES, f"{module_of(path)} has {lines} lines, allowed are {MAX_LINES}: split it by what it knows"
    assert ast.get_docstring(ast.parse(source)), f"{module_of(path)} needs a docstring: what does it know?"
    vague = VAGUE_NAMES & {part.strip("_") for part in module_of(path).split(".")}
    assert not vague, f"{module_of(path)}: '{vague.pop()}' says nothing; name the file for what it knows"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("robustft.store", "import streamlit as st"),
        ("robustft.regularizers.fda", "from ..store import read_run"),
        ("robustft.regularizers.fda", "def late():\n    from .. import store"),
        ("robustft.train", "from .regularizers.fda import fda_loss"),
        ("robustft.train", "from importlib import import_module\nimport_module('robustft.evaluate')"),
        ("robustft.evaluate", "import robustft.train as t"),
        ("robustft.jobs", "import torch"),
        ("robustft.figures.geometry", "from robustft.pipeline import get_graph"),
        ("robustft.__main__", "from . import ui"),
        ("pages.1_Launch", "from torch import nn"),
        ("pages.1_Launch", "from robustft import store"),
        ("pages.1_Launch", "import app"),
    ],
)
def test_forbidden_import_is_found(module: str, source: str) -> None:
    assert len(import_faults(source, module)) == 1


@pytest.mark.parametrize(
    "source",
    ["import pickle", "import torch\ntorch.load('x')", "from torch import load", "run('ls', shell=True)", "np.load(p, allow_pickle=True)", "os.system('ls')"],
)
def test_unsafe_code_is_found(source: str) -> None:
    assert unsafe_faults(source, "robustft.store")


def test_allowed_imports_pass() -> None:
    source = "import numpy\nfrom . import __version__\nfrom .types import Batch\nfrom .heads import Head\nrun(['ls'], shell=False)"
    assert not import_faults(source, "robustft.train") + unsafe_faults(source, "robustft.train")
    assert not import_faults("from ._unit import unit_rows\nfrom . import ldifs", "robustft.regularizers.fda")
