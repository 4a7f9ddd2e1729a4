"""Methods are rows, not trainers: where the head starts, what trains, which regularizer, which sampler."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .registry import Entry, Param, discover, find, parse_value, read_params
from .train import TrainConfig
from .types import UserError, quoted


@dataclass(frozen=True)
class Method:
    """One row of the menu.

    Attributes:
        title: Name as papers write it.
        summary: What it does, in one sentence.
        equation: What it minimises, in LaTeX.
        protects: What it keeps: nothing, weights, points, neighbourhoods.
        cost: What a step costs beyond plain fine-tuning.
        source: Paper.
        trains: ``none`` (the head is fitted in closed form or read from class names) or ``tower`` (tower and head).
        regularizer: Name in the registry, or None.
        defaults: Settings of the loop and the regularizer that differ from their own defaults.
    """

    title: str
    summary: str
    equation: str
    protects: str
    cost: str
    source: str
    trains: str = "tower"
    regularizer: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


_CE = r"\mathcal{L} = \mathrm{CE}(W \hat f_\theta(x), y)"


def _regularized(name: str) -> Method:
    """Makes the row of a method whose story is told by its regularizer's file."""
    entry = find("regularizers", name)
    told = {key: entry.declares(key.upper(), "") for key in ("title", "summary", "equation", "protects", "cost")}
    return Method(**told, source=entry.source, regularizer=name, defaults=entry.declares("DEFAULTS", {}))


METHODS: Mapping[str, Method] = {
    "zero_shot": Method(
        "Zero-shot",
        "The foundation model as it is, with a head made of class names. Trains nothing.",
        r"W_c = s \cdot \mathrm{mean}_t \, \hat g(\mathrm{prompt}_t(c))",
        "everything",
        "no training",
        "Radford et al. 2021, arXiv:2103.00020",
        trains="none",
    ),
    "linear_probe": Method(
        "Linear probe",
        "A new head on frozen features. The tower stays as it is.",
        r"\min_W \mathrm{CE}(W \hat f_{\theta_0}(x), y) + \tfrac{1}{2C} \lVert W \rVert^2",
        "everything but the head",
        "seconds: features are computed once",
        "Kumar et al. 2022, arXiv:2202.10054",
        trains="none",
        defaults={"head_start": "linear_probe"},
    ),
    "ft": Method(
        "Fine-tuning",
        "All weights of tower and head follow the task loss. The baseline that forgets.",
        _CE,
        "nothing",
        "the yardstick",
        "Wortsman et al. 2022, arXiv:2109.01903 (zero-shot head start)",
    ),
    "lp_ft": Method(
        "LP-FT",
        "A linear probe first, then fine-tuning from it: with a good head, early gradients distort the features less.",
        _CE + r", \quad W_{\text{start}} = W_{\mathrm{LP}}",
        "features, by a better start",
        "a linear probe beforehand",
        "Kumar et al. 2022, arXiv:2202.10054",
        defaults={"head_start": "linear_probe"},
    ),
    # Every regularizer is a method as it stands: a new file is a new row.
    **{name: _regularized(name) for name in discover("regularizers")},
}


def find_method(name: str) -> Method:
    """Returns a row.

    Raises:
        UserError: If there is none of that name; lists those there are.
    """
    if name not in METHODS:
        raise UserError(f"there is no method {quoted(name)}; choose one of {', '.join(METHODS)}.")
    return METHODS[name]


def regularizer_of(method: Method) -> Entry | None:
    """Returns the registry entry of a method's regularizer."""
    return find("regularizers", method.regularizer) if method.regularizer else None


def method_params(name: str) -> tuple[Param, ...]:
    """Returns what can be set for a method: the regularizer's own parameters first, then the loop's, with its defaults."""
    method = find_method(name)
    if method.trains == "none":
        return ()
    entry = regularizer_of(method)
    loop = [replace(p, source="loop") for p in read_params(TrainConfig)]
    own = [replace(p, source=entry.source) for p in entry.params] if entry else []
    params = [*own, *loop]
    return tuple(replace(p, default=method.defaults.get(p.name, p.default)) for p in params)


def resolve_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns every option of a method, the given ones checked and the others at their defaults.

    Raises:
        UserError: If an option is unknown or its value not allowed; names it and what is allowed.

    Example:
        >>> resolve_options("l2_sp", {"reg_weight": "0.5"})["reg_weight"]
        0.5
    """
    params = {p.name: p for p in method_params(name)}
    unknown = [key for key in given if key not in params]
    if unknown:
        allowed = f"choose among {', '.join(params)}" if params else "it has none"
        raise UserError(f"method {name!r} has no option {quoted(unknown[0])}; {allowed}.")
    return {key: parse_value(p, given.get(key, p.default)) for key, p in params.items()}


def train_config(options: Mapping[str, Any]) -> TrainConfig:
    """Picks the loop's settings out of a run's options."""
    return TrainConfig(**{f.name: options[f.name] for f in fields(TrainConfig)})


def regularizer_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Picks the regularizer's settings out of a run's options."""
    entry = regularizer_of(find_method(name))
    return {p.name: options[p.name] for p in entry.params} if entry else {}
