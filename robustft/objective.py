"""The objective: the task loss plus a regularizer, each kept apart for the record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .registry import Entry, find
from .types import Batch


@dataclass(frozen=True)
class Objective:
    """Task loss and regularizer of a method, ready to be called on a batch.

    Attributes:
        regularizer: Registry entry, or None for the plain task loss.
        options: Keyword arguments of the regularizer, all set.
        task_loss: Registry entry.
        task_options: Keyword arguments of the task loss that differ from its defaults.
        memory: What the regularizer keeps between batches: an estimate made at the start, or a network that learns along.
    """

    regularizer: Entry | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    task_loss: Entry = field(default_factory=lambda: find("task_losses", "cross_entropy"))
    task_options: Mapping[str, Any] = field(default_factory=dict)
    memory: nn.Module | None = None

    @property
    def needs(self) -> frozenset[str]:
        """What the two look at beyond features and labels: fields of `Batch`."""
        own: frozenset[str] = self.regularizer.declares("NEEDS", frozenset()) if self.regularizer else frozenset()
        return own | self.task_loss.declares("NEEDS", frozenset())

    def __call__(self, batch: Batch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Returns task loss and regularizer; their sum is minimised."""
        task_loss = self.task_loss.function(batch, **self.task_options)
        if self.regularizer is None:
            return task_loss, torch.zeros_like(task_loss)
        return task_loss, self.regularizer.function(batch, *self._remembered(), **self.options)

    def health(self, batch: Batch) -> dict[str, float]:
        """Returns what the regularizer reports of itself on a batch, if it reports anything.

        Raises:
            UserError: If the regularizer finds that it does not do its work.
        """
        report = self.regularizer.declares("health") if self.regularizer else None
        return report(batch, *self._remembered(), self.options) if report else {}

    def _remembered(self) -> tuple[nn.Module, ...]:
        """The regularizer's second argument, where it has one."""
        return (self.memory,) if self.memory is not None else ()
