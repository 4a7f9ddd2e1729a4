"""Hands, body parts, people and what they do, drawn from emoji."""

from ..world.tasks import EMOJI_DOMAINS, emoji_dataset

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "hand sign": "wave hand=raised_hand ok_hand v=victory_hand +1=thumbs_up fist point_up_2=pointing_finger pray=folded_hands",
    "body part": "ear nose brain tooth bone eye tongue lips",
    "person": "baby boy girl man woman older_man=old_man older_woman=old_woman bearded_person",
    "profession": "cop=police_officer sleuth_or_spy=detective guardsman ninja construction_worker princess man_with_turban person_in_tuxedo",
    "legend": "angel santa superhero mage fairy vampire merperson zombie",
    "athlete": "walking runner dancer surfer swimmer bicyclist person_climbing=climber weight_lifter",
}

people = emoji_dataset("people", "Hands, body parts, people and what they do", GROUPS)
