"""Answers of student and teacher about the same classes."""

from torch import Tensor

from ..types import Batch, UserError


def both_answers(batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns the student's logits and the teacher's, into which no gradient flows.

    Raises:
        UserError: If teacher and student answer about different classes.
    """
    assert batch.logits is not None and batch.logits_0 is not None
    if batch.logits.shape != batch.logits_0.shape:
        raise UserError(f"the student has {batch.logits.shape[1]} classes and the teacher {batch.logits_0.shape[1]}; give both the same class names.")
    return batch.logits, batch.logits_0.detach()
