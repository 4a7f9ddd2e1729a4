"""Metrics of one model's predictions, one file each: ``name(predictions) -> float``."""
