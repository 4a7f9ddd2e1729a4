"""Signs that stand for something, drawn from emoji."""

from ..world.tasks import EMOJI_DOMAINS, emoji_dataset

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "zodiac": "aries taurus gemini cancer leo virgo libra scorpius",
    "belief": "atom_symbol star_of_david yin_yang latin_cross peace_symbol om_symbol wheel_of_dharma star_and_crescent",
    "arrow": "arrow_up=up_arrow arrow_down=down_arrow arrow_left=left_arrow arrow_right=right_arrow "
    "leftwards_arrow_with_hook=hooked_arrow arrows_counterclockwise=circling_arrows left_right_arrow=double_arrow "
    "twisted_rightwards_arrows=shuffle_arrows",
    "mathematics": "heavy_multiplication_x=times_sign heavy_plus_sign=plus_sign heavy_division_sign=division_sign "
    "heavy_equals_sign=equals_sign infinity heavy_dollar_sign=dollar_sign question=question_mark "
    "exclamation=exclamation_mark",
    "prohibition": "warning no_entry no_entry_sign=prohibited no_bicycles no_smoking radioactive_sign=radioactive biohazard_sign=biohazard no_pedestrians",
    "public sign": "wheelchair restroom wc=water_closet recycle trident fleur_de_lis cinema copyright",
}

symbols = emoji_dataset("symbols", "Signs that stand for something", GROUPS)
