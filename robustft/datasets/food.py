"""Things to eat and to drink, drawn from emoji."""

from ..world.tasks import EMOJI_DOMAINS, emoji_dataset

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "fruit": "grapes watermelon lemon banana pineapple apple cherries strawberry",
    "vegetable": "avocado eggplant potato carrot corn hot_pepper broccoli garlic",
    "dessert": "icecream=soft_ice_cream doughnut cookie birthday=birthday_cake cupcake pie chocolate_bar lollipop",
    "meal": "hamburger fries pizza hotdog sandwich taco spaghetti ramen",
    "drink": "coffee tea wine_glass cocktail beer glass_of_milk=milk champagne bubble_tea",
    "breakfast": "bread croissant pretzel bagel pancakes waffle cheese_wedge=cheese fried_egg",
}

food = emoji_dataset("food", "Things to eat and to drink", GROUPS)
