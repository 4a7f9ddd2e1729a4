"""The objective: the task loss plus a regularizer, each kept apart for the record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .registry import Entry
from .types import Batch


@dataclass(frozen=True)
class Objective:
    """Task loss and regularizer of a method, ready to be called on a batch.

    Attributes:
        regularizer: Registry entry, or None for the plain task loss.
        options: Keyword arguments of the regularizer, all set.
        label_smoothing: Part of the target spread over all classes, in [0, 1).
    """

    regularizer: Entry | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    label_smoothing: float = 0.0

    @property
    def needs(self) -> frozenset[str]:
        """What the regularizer looks at beyond features and labels: of ``features_0``, ``taps``, ``theta``."""
        return self.regularizer.declares("NEEDS", frozenset()) if self.regularizer else frozenset()

    def __call__(self, batch: Batch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Returns task loss and regularizer; their sum is minimised."""
        assert batch.logits is not None
        task_loss = F.cross_entropy(batch.logits, batch.labels, label_smoothing=self.label_smoothing)
        if self.regularizer is None:
            return task_loss, torch.zeros_like(task_loss)
        return task_loss, self.regularizer.function(batch, **self.options)

    def health(self, batch: Batch) -> dict[str, float]:
        """Returns what the regularizer reports of itself on a batch, if it reports anything."""
        report = self.regularizer.declares("health") if self.regularizer else None
        return report(batch, self.options) if report else {}
