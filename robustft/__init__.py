"""Robust fine-tuning of vision foundation models: run it, and see what it did to the features."""

__version__ = "0.1.0"
