"""Sweeps: many runs from one form, methods times strengths times seeds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .configs import SEED, make_config
from .methods import METHODS, method_params
from .registry import parse_value
from .study import STUDIES
from .types import RunConfig, UserError, quoted

MOST_RUNS = 100
"""A sweep of more is refused: at a minute a run it would hold the queue for hours."""


@dataclass(frozen=True)
class Sweep:
    """What the runs of a sweep share, and in what they differ.

    Attributes:
        model: Name of a backbone.
        task: Name of the downstream task.
        methods: Names of methods.
        seeds: Seeds of every method that trains; the others have no draws.
        strengths: Method to the values of its strength setting; a method without any runs with its default.
        shared: Settings of every method that has them.
        device: As in `RunConfig`.
        held_out: Tasks on which forgetting is measured; None takes all others.
        curve: Whether WiSE-FT curves are measured.
    """

    model: str
    task: str
    methods: Sequence[str]
    seeds: Sequence[int] = (0,)
    strengths: Mapping[str, Sequence[float]] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    held_out: Sequence[str] | None = None
    curve: bool = True


def plan(sweep: Sweep) -> list[RunConfig]:
    """Returns the runs of a sweep, each once, seed by seed.

    Raises:
        UserError: If there are none or more than `MOST_RUNS`, or a setting is not allowed; names it.

    Example:
        >>> runs = plan(Sweep("glyphclip", "food", ["zero_shot", "l2_sp"], seeds=[0, 1], strengths={"l2_sp": [0.1, 1.0]}))
        >>> [(run.method, run.seed, run.options.get("reg_weight")) for run in runs]
        [('zero_shot', 0, None), ('l2_sp', 0, 0.1), ('l2_sp', 0, 1.0), ('l2_sp', 1, 0.1), ('l2_sp', 1, 1.0)]
    """
    if not sweep.methods or not sweep.seeds:
        raise UserError(f"a sweep of {len(sweep.methods)} methods and {len(sweep.seeds)} seeds has no runs; choose at least one of each.")
    points = [(seed, method, given) for seed in sweep.seeds for method in sweep.methods if _draws(method, seed, sweep) for given in _points(method, sweep)]
    if len(points) > MOST_RUNS:
        raise UserError(f"the sweep has {len(points):,} runs; at most {MOST_RUNS} are allowed. Take fewer methods, strengths or seeds.")
    runs: list[RunConfig] = []
    for seed, method, given in points:
        options = {**_own(method, sweep.shared), **given}
        config = make_config(sweep.model, sweep.task, method, seed=seed, device=sweep.device, options=options, held_out=sweep.held_out, curve=sweep.curve)
        runs += [config] if config not in runs else []
    return runs


def strength_setting(method: str) -> str | None:
    """Names the setting by which a method protects more or less, or None where it has none.

    Example:
        >>> strength_setting("l2_sp"), strength_setting("wise_ft"), strength_setting("ft")
        ('reg_weight', 'alpha', None)
    """
    known = STUDIES["methods"].strengths.get(method)
    if known:
        return known[0]
    return next((param.name for param in method_params(method) if param.name == "reg_weight"), None)


def usual_strengths(method: str) -> tuple[float, ...]:
    """Returns the strengths among which the methods study chooses, from the weakest to the strongest protection.

    Example:
        >>> usual_strengths("kd"), usual_strengths("ft")
        ((0.2, 0.5, 0.8), ())
    """
    return STUDIES["methods"].strengths.get(method, ("", ()))[1]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Reads seeds as a person types them.

    Raises:
        UserError: If a part is neither a seed nor a range of them, or there are more than `MOST_RUNS`.

    Example:
        >>> parse_seeds("0-2, 5"), parse_seeds("7")
        ((0, 1, 2, 5), (7,))
    """
    seeds: list[int] = []
    for part in _parts(text, "seeds", "0-2 or 0, 1, 5"):
        found = re.fullmatch(r"(\d{1,10})(?:\s*-\s*(\d{1,10}))?", part, re.ASCII)
        if not found:
            raise UserError(f"seeds has {quoted(part)}; give whole numbers or ranges, as in 0-2 or 0, 1, 5.")
        first, last = (parse_value(SEED, word) for word in (found[1], found[2] or found[1]))
        if not first <= last < first + MOST_RUNS:
            raise UserError(f"seeds has {quoted(part)}; a range begins with its smaller end and has at most {MOST_RUNS} seeds.")
        seeds += range(first, last + 1)
    return tuple(dict.fromkeys(seeds))


def parse_strengths(text: str, method: str) -> tuple[float, ...]:
    """Reads the values of a method's strength setting; none means its default.

    Raises:
        UserError: If a value is not allowed for the setting, or the method has no strength.

    Example:
        >>> parse_strengths("0.1, 1", "l2_sp"), parse_strengths(" ", "l2_sp")
        ((0.1, 1.0), ())
    """
    if not text.strip():
        return ()
    setting = strength_setting(method)
    if setting is None:
        raise UserError(f"method {method!r} has no strength; leave its strengths empty.")
    param = next(param for param in method_params(method) if param.name == setting)
    return tuple(dict.fromkeys(float(parse_value(param, part)) for part in _parts(text, "strengths", "0.1, 1, 10")))


def _parts(text: str, what: str, example: str) -> list[str]:
    parts = [part for part in re.split(r"[,;]\s*|(?<![-\s])\s+(?![-\s])", text.strip()) if part]
    if not parts or len(parts) > MOST_RUNS:
        raise UserError(f"{what} has {len(parts)} values; give from 1 to {MOST_RUNS}, as in {example}.")
    return [part.strip() for part in parts]


def _draws(method: str, seed: int, sweep: Sweep) -> bool:
    """A method that trains nothing has no draws, so it runs once."""
    return method not in METHODS or bool(METHODS[method].parts) or seed == sweep.seeds[0]


def _points(method: str, sweep: Sweep) -> list[dict[str, Any]]:
    setting = strength_setting(method)
    values = sweep.strengths.get(method, ()) if setting else ()
    return [{str(setting): value} for value in values] or [{}]


def _own(method: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Picks the shared settings that a method has."""
    names = {param.name for param in method_params(method)}
    return {key: value for key, value in shared.items() if key in names}
