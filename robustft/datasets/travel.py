"""Vehicles, buildings, weather and places, drawn from emoji."""

from ..world.tasks import EMOJI_DOMAINS, emoji_dataset

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "road vehicle": "bus ambulance fire_engine taxi car truck tractor racing_car",
    "aircraft or train": "airplane helicopter rocket parachute flying_saucer steam_locomotive tram bullettrain_side=bullet_train",
    "boat": "canoe speedboat boat=sailboat ship ferry anchor ring_buoy=life_buoy passenger_ship",
    "building": "house hospital school church european_castle=castle tent factory office",
    "weather": "sunny=sun cloud rain_cloud tornado rainbow umbrella snowflake snowman",
    "sight": "mountain volcano tokyo_tower statue_of_liberty fountain ferris_wheel roller_coaster stadium",
}

travel = emoji_dataset("travel", "Vehicles, buildings, weather and places", GROUPS)
