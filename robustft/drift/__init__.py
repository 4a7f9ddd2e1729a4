"""Distances between two encodings of one dataset, one file each: ``name(features_0, features_1) -> float``."""
