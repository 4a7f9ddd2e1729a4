"""Moods of a face, and six creatures, drawn from emoji."""

from ..world.tasks import EMOJI_DOMAINS, emoji_dataset

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "happy": "grinning laughing joy wink blush innocent heart_eyes sunglasses",
    "silly": "stuck_out_tongue zany_face money_mouth_face star-struck partying_face nerd_face face_with_cowboy_hat=cowboy clown_face",
    "sad": "cry sob pensive worried disappointed weary pleading_face slightly_frowning_face=frown",
    "upset": "rage angry triumph open_mouth scream flushed exploding_head dizzy_face",
    "unwell": "mask face_with_thermometer=fever nauseated_face sneezing_face hot_face cold_face sleeping yawning_face",
    "creature": "skull ghost alien robot_face japanese_ogre=ogre hankey=poop smiley_cat see_no_evil=hiding_monkey",
}

faces = emoji_dataset("faces", "Moods of a face, and six creatures", GROUPS)
