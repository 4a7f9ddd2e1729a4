"""The line through forgetting against distance: against NumPy, draw by draw, and by what its band must hold."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustft.resampling import resample
from robustft.trend import trend


def scattered(seed: int, *, tasks: int = 9, runs: int = 5, slope: float = 2.0) -> pd.DataFrame:
    """Draws pairs around a line, with an offset a task."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(tasks), runs)
    x = rng.gamma(2, 0.5, len(task))
    y = 1 + slope * x + rng.normal(size=tasks)[task] + 0.3 * rng.normal(size=len(task))
    return pd.DataFrame({"task": [f"t{i}" for i in task], "downstream": "food", "forgetting": y, "l2": x})


@given(seed=st.integers(0, 1000), shift=st.sampled_from([0.0, 1e4]))
@settings(max_examples=20)
def test_every_draw_is_the_line_of_its_points(seed: int, shift: float) -> None:
    pairs = scattered(seed)
    x, y = pairs["l2"].to_numpy() + shift, pairs["forgetting"].to_numpy()
    draws = resample(pairs["task"].tolist(), 10, seed)
    slope, height = draws.line(x, y)
    for b, counts in enumerate(draws.counts.astype(int)):
        rows = np.repeat(np.arange(len(x)), counts[draws.cluster])
        expected = np.polyfit(x[rows] - x.mean(), y[rows], 1)
        np.testing.assert_allclose([slope[b], height[b]], expected, rtol=1e-6, atol=1e-6)


def test_line_runs_from_the_nearest_pair_to_the_furthest() -> None:
    pairs = scattered(0)
    line = trend(pairs, "l2")
    assert line["distance"].iloc[[0, -1]].tolist() == pytest.approx([pairs["l2"].min(), pairs["l2"].max()])
    slope, height = np.polyfit(pairs["l2"], pairs["forgetting"], 1)
    np.testing.assert_allclose(line["forgetting"], height + slope * line["distance"])
    assert ((line["low"] <= line["forgetting"]) & (line["forgetting"] <= line["high"])).all()


def test_order_of_pairs_changes_nothing() -> None:
    pairs = scattered(1)
    pd.testing.assert_frame_equal(trend(pairs, "l2"), trend(pairs.sample(frac=1, random_state=0), "l2"))


def test_band_holds_the_true_line_about_as_often_as_it_says() -> None:
    """At the middle of the distances, where the true height is 1 + 2 x; 20 tasks are near enough to many."""
    held = 0
    for seed in range(100):
        line = trend(scattered(seed, tasks=20), "l2", n_boot=200, seed=seed)
        row = line.iloc[len(line) // 4]
        held += row["low"] <= 1 + 2 * row["distance"] <= row["high"]
    assert 85 <= held <= 99


def test_no_line_without_spread_and_no_band_with_two_tasks() -> None:
    pairs = scattered(0)
    assert trend(pairs.assign(l2=0.5), "l2").empty and trend(pairs.assign(l2=np.nan), "l2").empty and trend(pairs[:1], "l2").empty
    few = trend(scattered(0, tasks=2), "l2")
    assert few["forgetting"].notna().all() and few[["low", "high"]].isna().all(axis=None)


def test_pairs_that_lack_the_distance_are_no_part_of_it() -> None:
    pairs = scattered(0)
    pairs.loc[:4, "l2"] = np.nan
    pd.testing.assert_frame_equal(trend(pairs, "l2"), trend(pairs[5:], "l2"))
