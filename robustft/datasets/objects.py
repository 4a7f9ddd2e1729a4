"""Clothes, instruments, devices, tools, papers and laboratory ware, drawn from emoji."""

from ..world.tasks import EMOJI_DOMAINS, emoji_dataset

DOMAINS = EMOJI_DOMAINS
GROUPS = {
    "clothing": "shirt jeans necktie dress coat socks gloves scarf",
    "instrument": "guitar trumpet violin saxophone accordion banjo drum_with_drumsticks=drum microphone",
    "device": "iphone=phone battery computer=laptop printer camera tv=television radio keyboard",
    "tool": "hammer axe wrench screwdriver scissors key magnet ladder",
    "stationery": "book memo paperclip newspaper calendar clipboard briefcase package=parcel",
    "laboratory": "microscope telescope test_tube syringe pill stethoscope dna petri_dish",
}

objects = emoji_dataset("objects", "Clothes, instruments, devices, tools, papers and laboratory ware", GROUPS)
