"""The records that travel between rooms. Everything here is data; nothing here computes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor


class UserError(ValueError):
    """Bad input that a person can mend: says the value, what is allowed and what to do."""


def quoted(value: object) -> str:
    """Writes a value that came from outside into a message: on one line, with no control characters, cut at 60."""
    text = repr(value) if len(str(value)) <= 60 else repr(str(value)[:60]) + "..."
    return text.encode("ascii", "backslashreplace").decode() if not text.isprintable() else text


@dataclass(frozen=True)
class Range:
    """Closed range of a numeric parameter, written into its annotation; pages and the CLI read it there."""

    low: float
    high: float


@dataclass(frozen=True)
class Dataset:
    """One split of one domain of one task, in memory.

    Attributes:
        name: The task, as `registry` lists it.
        domain: Source of shift inside the task; the first of a task's domains is the in-distribution one.
        split: ``train``, ``val`` or ``test``. Splits never share a sample.
        images: RGB bytes, before any model's own preprocessing.
        labels: Class of each image, an index into ``class_names``.
        class_names: In label order; what zero-shot heads put into the templates.
        templates: Prompt patterns with one ``{}`` for the class name.
        fingerprint: Hash of the content, for cache keys.
    """

    name: str
    domain: str
    split: str
    images: UInt8[Tensor, "n 3 h w"] | UInt8[np.ndarray, "n 3 h w"]
    labels: Int[Tensor, "n"] | Int[np.ndarray, "n"]
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Features:
    """Encoder outputs of one dataset split, raw (not normalised), with their labels."""

    values: Float[np.ndarray, "n d"]
    labels: Int[np.ndarray, "n"]


@dataclass(frozen=True)
class KnnGraph:
    """Nearest neighbours by cosine, self excluded, nearest first.

    Attributes:
        indices: Row of each neighbour.
        similarities: Its cosine, in [-1, 1], non-increasing along a row.
    """

    indices: Int[np.ndarray, "n k"]
    similarities: Float[np.ndarray, "n k"]


@dataclass(frozen=True)
class TrainData:
    """Training images and what makes them the model's input; validation images only where something is chosen on them."""

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, "n"]
    preprocess: Callable[[Tensor], Tensor]
    val_images: UInt8[Tensor, "m 3 h w"] | None = None
    val_labels: Int[Tensor, "m"] | None = None

    def inputs(self, rows: Any, device: Any) -> Float[Tensor, "b 3 s s"]:
        """Returns the model's input for some training images, not augmented."""
        return self.preprocess(self.images[rows].to(device))


@dataclass(frozen=True)
class Batch:
    """All that a task loss or a regularizer may look at; the suffix ``_0`` marks the frozen starting point.

    Attributes:
        features: Current embeddings; gradients flow here.
        labels: Classes.
        features_0: The same images through the starting encoder.
        logits: Current outputs of the head.
        logits_0: Outputs of the starting encoder with the zero-shot head, whatever head is trained.
        class_weights: The head's row of each class: unit text embeddings times the logit scale, where it is made of text.
        captions: A text of each image's class, as a unit embedding times the logit scale.
        taps: Current activations at 0, 1/4, 1/2, 3/4 and 1 of the tower's depth.
        taps_0: The same at the starting point.
        theta: Trained parameters that have a counterpart at the start, by name.
        theta_0: Those counterparts.
        step: Updates done before this one.
    """

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, "n"]
    features_0: Float[Tensor, "n d0"] | None = None
    logits: Float[Tensor, "n c"] | None = None
    logits_0: Float[Tensor, "n c"] | None = None
    class_weights: Float[Tensor, "c d"] | None = None
    captions: Float[Tensor, "n d"] | None = None
    taps: tuple[Float[Tensor, "n _ _"], ...] = ()
    taps_0: tuple[Float[Tensor, "n _ _"], ...] = ()
    theta: Mapping[str, Tensor] = field(default_factory=dict)
    theta_0: Mapping[str, Tensor] = field(default_factory=dict)
    step: int = 0


@dataclass(frozen=True)
class RunConfig:
    """All that determines a run. JSON values only; its hash is the run's name.

    Attributes:
        model: Name of a backbone.
        dataset: Name of the downstream task; its first domain is trained on.
        method: Name of a row in `methods`.
        seed: Source of every random draw of the run.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
        options: Every parameter of the loop and of the regularizer, none left to a default.
        held_out: Tasks on which forgetting is measured.
        curve: Whether the models between start and end are measured too, for WiSE-FT.
    """

    model: str
    dataset: str
    method: str
    seed: int = 0
    device: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()
    curve: bool = True


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer update did.

    Attributes:
        step: Updates done, counted from 1.
        loss: The objective; ``task_loss`` and ``reg_loss`` are its two terms.
        lr: Learning rate of this update.
        grad_norm: Norm of the gradient before clipping.
        seconds: Wall-clock time of this update.
        extras: What a regularizer reports of its health (clamp rate, threshold, ...).
    """

    step: int
    loss: float
    task_loss: float
    reg_loss: float
    lr: float
    grad_norm: float
    seconds: float
    extras: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """One number that a run measured.

    Attributes:
        dataset: The task it was measured on.
        domain: The task's domain.
        metric: Its name; accuracies are fractions in [0, 1], never percent.
        value: The number.
        n: Samples behind it.
    """

    dataset: str
    domain: str
    metric: str
    value: float
    n: int


@dataclass(frozen=True)
class RunRecord:
    """A run as the store holds it.

    Attributes:
        run_id: Hash of the config.
        config: What was asked.
        is_finished: Whether the ``done`` marker is there; nothing else means finished.
        scores: Empty until the run is finished.
        status: The last word of the process: stage, step, steps, message, times, pid.
    """

    run_id: str
    config: RunConfig
    is_finished: bool
    scores: tuple[Score, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict)
