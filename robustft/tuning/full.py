"""All weights train: the tower, the head, and what the head is made of."""

from torch import nn


def full(classifier: nn.Module, seed: int) -> None:
    """Lets every weight follow the loss.

    Args:
        classifier: Changed in place.
        seed: Not used.

    Source:
        End-to-end fine-tuning, Wortsman et al. 2022, arXiv:2109.01903.
    """
    classifier.requires_grad_(True)
