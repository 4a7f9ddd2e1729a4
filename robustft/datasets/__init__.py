"""Tasks, one file each: ``name(split, *, domain, seed) -> Dataset``."""
