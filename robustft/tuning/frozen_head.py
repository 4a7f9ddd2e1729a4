"""The image tower trains against a head that stays."""

from typing import Any

from torch import nn


def frozen_head(classifier: Any, seed: int) -> None:
    """Lets the image tower follow the loss and keeps the head, so that class texts stay what they were.

    Args:
        classifier: Changed in place.
        seed: Not used.

    Source:
        CLIPood, Shu et al. 2023, arXiv:2302.00864: text features are frozen.
    """
    encoder: nn.Module = classifier.encoder
    encoder.requires_grad_(True)
