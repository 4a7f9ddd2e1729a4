"""Regularizers, one file each: ``name(batch, *, reg_weight, ...) -> scalar``."""
