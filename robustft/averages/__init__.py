"""Averages of weights over a run, one file each: ``name(step, steps, ...)`` is the share that the newest weights get."""
