"""Sports, games, parties and crafts, drawn from emoji."""

from ..world.tasks import EMOJI_DOMAINS, emoji_dataset

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "ball": "soccer=soccer_ball baseball basketball football=american_football volleyball tennis=tennis_ball rugby_football=rugby_ball 8ball=pool_ball",
    "sport gear": "bowling golf ski sled ice_skate boxing_glove cricket_bat_and_ball=cricket_bat lacrosse",
    "party": "jack_o_lantern=pumpkin_lantern christmas_tree fireworks balloon tada=party_popper gift ribbon firecracker",
    "game": "dart kite video_game joystick game_die jigsaw slot_machine chess_pawn",
    "toy or card": "teddy_bear nesting_dolls spades hearts diamonds clubs yo-yo magic_wand",
    "craft": "art=palette performing_arts=theatre_masks frame_with_picture=picture_frame thread yarn sewing_needle knot pinata",
}

activities = emoji_dataset("activities", "Sports, games, parties and crafts", GROUPS)
