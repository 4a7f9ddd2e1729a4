"""Methods are rows, not trainers: which head, what trains, which task loss, regularizer, sampler and average of weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from .registry import Entry, Param, discover, find, parse_value, read_params
from .sampling import IMAGES_A_CLASS
from .train import TEACHER_NEEDS, Average, TrainConfig
from .types import UserError, quoted


@dataclass(frozen=True)
class Method:
    """One row of the menu.

    Attributes:
        title: Name as papers write it.
        summary: What it does, in one sentence.
        equation: What it minimises, in LaTeX.
        protects: What it keeps: nothing, weights, points, neighbourhoods, outputs.
        cost: What a step costs beyond plain fine-tuning.
        source: Paper.
        trains: Name in the registry of tunings, or ``none``: the head is fitted in closed form or read from class names.
        task_loss: Name in the registry.
        regularizer: Name in the registry, or None.
        average: Name in the registry of averages, or None for the last weights.
        has_text_head: Whether the head is written by the text tower, which then trains along.
        defaults: Settings of the loop and of the parts that differ from their own defaults.
    """

    title: str
    summary: str
    equation: str
    protects: str
    cost: str
    source: str
    trains: str = "full"
    task_loss: str = "cross_entropy"
    regularizer: str | None = None
    average: str | None = None
    has_text_head: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, Entry]:
        """The registered parts that it is put together from, in the order in which their parameters are shown."""
        if self.trains == "none":
            return {}
        named = {"regularizers": self.regularizer, "tuning": self.trains, "averages": self.average, "task_losses": self.task_loss}
        return {package: find(package, name) for package, name in named.items() if name}


_CE = r"\mathcal{L} = \mathrm{CE}(W \hat f_\theta(x), y)"
_FLYP = r"\mathcal{L} = \tfrac{1}{2} \left[ \mathrm{CE}(s Z_I Z_T^\top, \mathrm{diag}) + \mathrm{CE}(s Z_T Z_I^\top, \mathrm{diag}) \right]"


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
    "lora": Method(
        "LoRA",
        "Fine-tuning of low-rank additions to the tower's attention and MLP layers; the tower's own weights stay.",
        r"W = W_0 + \tfrac{\alpha}{r} B A, \quad \min_{A, B, W_{\text{head}}} \mathrm{CE}",
        "weights, up to a change of low rank",
        "a little less memory; small extra products",
        "Hu et al. 2022, arXiv:2106.09685, by peft",
        trains="lora",
        defaults={"weight_decay": 0.0},
    ),
    "flyp": Method(
        "FLYP",
        "Fine-tunes as the model was pre-trained: images against captions of their classes, both towers and the logit scale.",
        _FLYP,
        "the tie between images and text",
        "one forward and backward pass of the text tower a step",
        "Goyal et al. 2023, arXiv:2212.00638",
        task_loss="contrastive",
        has_text_head=True,
    ),
    "flyp_ce": Method(
        "FLYP-CE",
        "FLYP's ablation: cross-entropy over the class texts, each under a template drawn anew every step; both towers train.",
        r"\mathcal{L} = \mathrm{CE}(s \, g_\phi(\mathrm{prompt}_t(c))^\top \hat f_\theta(x), y), \quad t \text{ drawn each step}",
        "the tie between images and text",
        "one forward and backward pass of the text tower over all classes a step",
        "Goyal et al. 2023, arXiv:2212.00638, ablation",
        has_text_head=True,
    ),
    "clipood": Method(
        "CLIPood",
        "The image tower against frozen class texts with a margin between unlike classes; weights averaged by a Beta density.",
        r"\mathcal{L} = \mathrm{CE}(s (\hat f \cdot t_k + \lambda (1 - t_y \cdot t_k)), y), \quad \bar\theta = \tfrac{\sum_i \beta_i \theta_i}{\sum_i \beta_i}",
        "class texts, and weights by averaging",
        "one copy of the weights; no extra pass",
        "Shu et al. 2023, arXiv:2302.00864",
        trains="frozen_head",
        task_loss="margin_softmax",
        average="beta",
    ),
    "wise_ft": Method(
        "WiSE-FT",
        "Fine-tuning, then the average of the weights before and after, head included. The WiSE-FT page shows every alpha of any run.",
        r"\theta_\alpha = (1 - \alpha) \, \theta_0 + \alpha \, \theta_1",
        "weights, by averaging",
        "nothing while it trains",
        "Wortsman et al. 2022, arXiv:2109.01903",
        average="wise",
    ),
    "ema": Method(
        "EMA",
        "Fine-tuning whose result is a moving average of its weights, begun at the start's.",
        r"\bar\theta_i = d \, \bar\theta_{i-1} + (1 - d) \, \theta_i, \quad \bar\theta_0 = \theta_0",
        "weights, by averaging",
        "one copy of the weights; no extra pass",
        "Wortsman et al. 2022, arXiv:2109.01903, as a baseline",
        average="ema",
    ),
    "early_stopping": Method(
        "Early stopping",
        "Fine-tuning that ends when validation in the training domain stops to improve, with the weights that were best there.",
        _CE + r", \quad \theta = \theta_{i^*}, \; i^* = \arg\max_i A_{\mathrm{val}}(\theta_i)",
        "what the last steps would have changed",
        "a pass over the validation images a checkpoint; fewer steps",
        "Wortsman et al. 2022, arXiv:2109.01903, as a baseline",
        defaults={"patience": 3, "checkpoint_every": 10},
    ),
}


def find_method(name: str) -> Method:
    """Returns a row.

    Raises:
        UserError: If there is none of that name; lists those there are.
    """
    if name not in METHODS:
        raise UserError(f"there is no method {quoted(name)}; choose one of {', '.join(METHODS)}.")
    return METHODS[name]


def method_params(name: str) -> tuple[Param, ...]:
    """Returns what can be set for a method: its parts' own parameters first, then the loop's, with its defaults."""
    method = find_method(name)
    own = [replace(p, source=entry.source) for entry in method.parts.values() for p in entry.params]
    loop = [replace(p, source="loop") for p in read_params(TrainConfig) if p.name not in _without(method)] if method.parts else []
    return tuple(replace(p, default=method.defaults.get(p.name, p.default)) for p in [*own, *loop])


def _without(method: Method) -> set[str]:
    """Names the settings of the loop that mean nothing to a method."""
    regularizer, average = method.parts.get("regularizers"), method.parts.get("averages")
    asks_teacher = regularizer and regularizer.declares("NEEDS", frozenset()) & TEACHER_NEEDS
    keeps_head = method.has_text_head or method.trains == "frozen_head"
    must_end = average and average.declares("ONLY_AT_THE_END", False)
    return (set() if asks_teacher else {"teacher_cache"}) | ({"head_start"} if keeps_head else set()) | ({"patience"} if must_end else set())


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


def check_together(name: str, options: Mapping[str, Any], n_classes: int) -> list[str]:
    """Checks settings against each other and against the task, which no range can.

    Args:
        name: A method.
        options: All its settings.
        n_classes: Classes of the downstream task.

    Returns:
        Warnings: what can be run, but will hardly do what is meant.

    Raises:
        UserError: If the settings cannot be run together; names them and what is allowed.

    Example:
        >>> check_together("fda", resolve_options("fda", {"n_neighbors": 3}), n_classes=48)
        ['n_neighbors = 3 is not above the 3 others of its class that an image meets in a batch: neighbourhoods stay inside a class.']
    """
    if not find_method(name).parts:
        return []
    if n_classes < 2:
        raise UserError(f"the task has {n_classes} class, and a classifier needs two; add images of another class.")
    neighbors, batch_size = options.get("n_neighbors"), options["batch_size"]
    if neighbors is None:
        return []
    if neighbors > batch_size - 2:
        raise UserError(f"n_neighbors = {neighbors} is not allowed with batch_size = {batch_size}; give at most {batch_size - 2}, or a larger batch_size.")
    served = n_classes if options["sampler"] == "uniform" else min(n_classes, max(2, batch_size // IMAGES_A_CLASS))
    same = max(0, round(batch_size / served) - 1)
    if neighbors > same:
        return []
    return [f"n_neighbors = {neighbors} is not above the {same} others of its class that an image meets in a batch: neighbourhoods stay inside a class."]


def train_config(options: Mapping[str, Any]) -> TrainConfig:
    """Picks the loop's settings out of a run's options."""
    return TrainConfig(**{f.name: options[f.name] for f in fields(TrainConfig) if f.name in options})


def part_options(entry: Entry | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Picks the settings of one part out of a run's options."""
    return {p.name: options[p.name] for p in entry.params} if entry else {}


def average_rule(method: Method, options: Mapping[str, Any]) -> Average | None:
    """Returns the rule by which a method averages weights, or None."""
    entry = method.parts.get("averages")
    return partial(entry.function, **part_options(entry, options)) if entry else None
