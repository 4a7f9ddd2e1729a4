"""Animals in six families, from pets to bugs, drawn from emoji."""

from ..world.tasks import EMOJI_DOMAINS, emoji_dataset

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "pet": "dog cat mouse hamster rabbit fox_face=fox bear panda_face=panda",
    "farm animal": "cow pig racehorse=horse ram goat dromedary_camel=camel ox llama",
    "wild animal": "elephant gorilla tiger2=tiger lion_face=lion zebra_face=zebra giraffe_face=giraffe rhinoceros kangaroo",
    "bird": "penguin owl eagle duck swan flamingo parrot rooster",
    "sea animal": "whale dolphin shark octopus tropical_fish blowfish seal jellyfish",
    "bug": "butterfly bug=caterpillar ant bee beetle ladybug spider snail",
}

animals = emoji_dataset("animals", "Animals in six families, from pets to bugs", GROUPS)
