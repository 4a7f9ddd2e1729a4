"""Configs at the edge: what a person asked for, checked and completed, as a `RunConfig`, a file or a command line."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from .devices import check_device
from .methods import find_method, resolve_options
from .registry import Param, discover, find, parse_value
from .types import RunConfig, UserError, quoted

SEED = Param("seed", int, 0, 0, 2**31 - 1)
CURVE = Param("curve", bool, True)
CONFIG_BYTES = 100_000
"""A config file is a few hundred bytes; a much larger one is something else."""


def make_config(
    model: str,
    dataset: str,
    method: str,
    *,
    seed: Any = 0,
    device: str = "auto",
    options: Mapping[str, Any] | None = None,
    held_out: Sequence[str] | None = None,
    curve: Any = True,
) -> RunConfig:
    """Checks what was asked for and fills in every default.

    Args:
        model: Name of a backbone.
        dataset: Name of the downstream task.
        method: Name of a method.
        seed: Source of every draw of the run.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
        options: Settings that differ from the method's defaults.
        held_out: Tasks to measure forgetting on; None takes all others.
        curve: Whether the models between start and end are measured too.

    Raises:
        UserError: At the first thing that is unknown or out of range; names it and what is allowed.
    """
    for what, value in (("model", model), ("dataset", dataset), ("method", method), ("device", device)):
        if not isinstance(value, str):
            raise UserError(f"{what} = {quoted(value)} is not allowed; give a name.")
    find("backbones", model)
    find("datasets", dataset)
    find_method(method)
    check_device(device)
    for name in held_out or ():
        find("datasets", name)
        if name == dataset:
            raise UserError(f"held-out task {name!r} is the downstream task itself; leave it out of the held-out tasks.")
    # In the registry's order, so that the same tasks named in another order are the same run.
    others = tuple(name for name in discover("datasets") if name != dataset and (held_out is None or name in held_out))
    return RunConfig(model, dataset, method, parse_value(SEED, seed), device, resolve_options(method, options or {}), others, parse_value(CURVE, curve))


def read_config(path: Path) -> RunConfig:
    """Reads a config that the Launch page or a run wrote.

    Raises:
        UserError: If the file cannot be read, is no config, or holds something unknown; names what.
    """
    try:
        with path.open("rb") as opened:
            text = opened.read(CONFIG_BYTES + 1)
        raw = json.loads(text) if len(text) <= CONFIG_BYTES else None
    except OSError as error:
        raise UserError(
            f"the config file {path.name!r} cannot be read ({(error.strerror or 'no file').lower()}); give a file that Launch or a run wrote."
        ) from None
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise UserError(f"the file {path.name!r} is not a run's config; give a JSON file that Launch or a run wrote.")
    return config_of(raw)


def config_of(raw: Mapping[str, Any]) -> RunConfig:
    """Checks a config read from outside.

    Raises:
        UserError: If a key is unknown or missing, or a value not allowed.
    """
    known = {f.name for f in fields(RunConfig)}
    unknown, missing = sorted(map(str, raw.keys() - known)), [key for key in ("model", "dataset", "method") if key not in raw]
    if unknown:
        raise UserError(f"the config has an unknown key {quoted(unknown[0])}; known ones are {', '.join(sorted(known))}.")
    if missing:
        raise UserError(f"the config lacks {missing[0]!r}; give model, dataset and method.")
    options, held_out = raw.get("options", {}), raw.get("held_out")
    if not isinstance(options, dict):
        raise UserError(f"options = {quoted(options)} is not allowed; give an object of names and values.")
    if held_out is not None and not (isinstance(held_out, (list, tuple)) and all(isinstance(name, str) for name in held_out)):
        raise UserError(f"held_out = {quoted(held_out)} is not allowed; give a list of task names.")
    named = (raw["model"], raw["dataset"], raw["method"])
    return make_config(*named, seed=raw.get("seed", 0), device=raw.get("device", "auto"), options=options, held_out=held_out, curve=raw.get("curve", True))


def config_json(config: RunConfig) -> str:
    """Returns a config as the text of a file that ``train --config`` reads."""
    return json.dumps(asdict(config), indent=1, sort_keys=True) + "\n"


def command_line(config: RunConfig) -> str:
    """Returns the command that does the same as the page: options that are at their defaults are left out."""
    words = ["python", "-m", "robustft", "train", "--model", config.model, "--dataset", config.dataset, "--method", config.method]
    plain = resolve_options(config.method, {})
    changed = [f"{key}={_written(value)}" for key, value in config.options.items() if value != plain[key]]
    if changed:
        words += ["--set", *changed]
    words += ["--seed", str(config.seed), "--device", config.device]
    if set(config.held_out) != {name for name in discover("datasets") if name != config.dataset}:
        words += ["--held-out", ",".join(config.held_out)]
    if not config.curve:
        words += ["--no-curve"]
    return shlex.join(words)


def _written(value: Any) -> str:
    """Writes a value as `parse_value` reads it."""
    return {None: "none", True: "true", False: "false"}.get(value, str(value)) if value is None or isinstance(value, bool) else str(value)
