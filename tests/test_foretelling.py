"""Forgetting against distance: pairs by hand, correlations against SciPy, intervals by what they must hold."""

import time
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustft.evaluate import held_out
from robustft.foretelling import CORRELATIONS, advantage, correlations, drift_pairs, measures_of, title_of, unmoved_runs, verdict
from robustft.resampling import interval, is_constant, resample
from robustft.types import RunConfig, RunRecord, Score, UserError


def record(run_id: str, *rows: tuple, method: str = "ft", downstream: str = "food", seed: int = 0) -> RunRecord:
    """Makes a run from (task, domain, metric, value)."""
    return RunRecord(run_id, RunConfig("m", downstream, method, seed), True, tuple(Score(*row, 100) for row in rows))


def world(seed: int = 0, *, runs: int = 6, tasks: int = 9, downstream: int = 1, noise: float = 0.5) -> pd.DataFrame:
    """Draws pairs in which otdd makes the forgetting, l2 is otdd with noise, and dice tell nothing."""
    rng, rows = np.random.default_rng(seed), []
    for run in range(runs):
        for task in range(tasks):
            otdd, place = rng.gamma(2, 0.5), {"run": f"r{run}", "method": "ft", "downstream": f"d{run % downstream}", "seed": run, "task": f"t{task:02}"}
            rows.append(place | {"forgetting": otdd + noise * rng.normal(), "otdd": otdd, "l2": otdd + rng.normal(), "dice": rng.normal()})
    return pd.DataFrame(rows)


def by_hand(forgetting: list[float], **measures: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"run": "a", "downstream": "food", "task": [f"t{i}" for i in range(len(forgetting))], "forgetting": forgetting, **measures})


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_pairs_by_hand() -> None:
    own = [("food", "color", "delta_lp", 0.5), ("food", "color", "drift_l2", 9.0)]
    task = [("digits", "x", "delta_lp", -0.1), ("digits", "y", "delta_lp", -0.2), ("digits", "x", "drift_l2", 0.5), ("digits", "y", "drift_l2", 0.7)]
    run = record("a", *own, *task, ("faces", "x", "delta_lp", 0.02), ("faces", "x", "drift_l2", 0.1), ("faces", "x", "drift_otdd", 0.3), seed=3)
    pairs = drift_pairs([run])
    assert pairs.columns.tolist() == ["run", "method", "downstream", "seed", "task", "forgetting", "l2", "otdd"]
    assert pairs[["run", "method", "downstream", "seed", "task"]].to_numpy().tolist() == [["a", "ft", "food", 3, "digits"], ["a", "ft", "food", 3, "faces"]]
    np.testing.assert_allclose(pairs[["forgetting", "l2", "otdd"]].to_numpy(dtype=float), [[15, 0.6, np.nan], [-2, 0.1, 0.3]])
    assert dict(zip(pairs["task"], -pairs["forgetting"] / 100, strict=True)) == pytest.approx(held_out(run.scores, "food", "delta_lp"))


def test_runs_that_moved_nothing_are_left_out_and_named() -> None:
    def run(name: str, drift: float, delta: float = 0.0) -> RunRecord:
        return record(name, ("digits", "x", "delta_lp", delta), ("digits", "x", "drift_l2", drift), ("digits", "x", "drift_neighbors_lost", 0.0))

    unmeasured = record("old", ("digits", "x", "delta_lp", -0.1))
    records = [run("zero_shot", 0.0), run("ft", 0.2, -0.1), run("rounding", 3e-9), unmeasured]
    assert unmoved_runs(records) == ["zero_shot", "rounding"]
    pairs = drift_pairs(records)
    assert pairs["run"].tolist() == ["ft"], "a run without any drift has no pair either"
    assert "-" not in str(drift_pairs([run("b", 0.1)])["forgetting"].iloc[0]), "no change is 0, not -0"


def test_equal_changes_are_ties_though_their_last_bits_differ() -> None:
    changes = {"a": 0.3 - 0.1, "b": 0.2, "c": 0.9 - 0.7}
    assert len(set(changes.values())) == 3
    rows = [row for task, change in changes.items() for row in ((task, "x", "delta_zs", change), (task, "x", "drift_l2", 0.1))]
    assert drift_pairs([record("a", *rows)], "delta_zs")["forgetting"].tolist() == [-20.0] * 3


def test_no_records_give_no_pairs_and_no_measures() -> None:
    pairs = drift_pairs([])
    assert (len(pairs), measures_of(pairs), len(correlations(pairs))) == (0, [], 0)
    assert verdict(pairs) == "These runs did not measure OTDD, so it cannot be held against L2."
    assert drift_pairs([record("a", ("digits", "x", "delta_zs", -0.1), ("digits", "x", "drift_l2", 0.1))]).empty, "it has no delta_lp"


def test_metric_that_is_no_change_is_refused() -> None:
    with pytest.raises(UserError, match="'lp_accuracy' is no change; give delta_lp"):
        drift_pairs([], "lp_accuracy")


# --- correlations -----------------------------------------------------------------------------------------------------


def test_correlation_of_three_points_by_hand() -> None:
    # Deviations (-1, 0, 1) and (-2, 1, 1): 3 / sqrt(2 * 6). Ranks 1 2 3 and 1 2.5 2.5: 1.5 / sqrt(2 * 1.5).
    row = correlations(by_hand([0.0, 3.0, 3.0], l2=[1.0, 2.0, 3.0])).iloc[0]
    assert row["pearson"] == pytest.approx(3 / np.sqrt(12)) and row["spearman"] == pytest.approx(1.5 / np.sqrt(3))
    assert (row["points"], row["runs"], row["tasks"]) == (3, 1, 3)
    assert np.isnan(row["pearson_within"]) and np.isnan(row["spearman_within_low"]), "one downstream task"


numbers = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30)


@given(values=numbers)
@settings(max_examples=50)
def test_same_correlations_as_scipy_with_ties(values: list[tuple[int, int]]) -> None:
    x, y = np.array(values, dtype=float).T
    row = correlations(by_hand(y.tolist(), l2=x.tolist()), n_boot=1).iloc[0]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(row[["pearson", "spearman"]].astype(float)).all()
    else:
        assert row["pearson"] == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-9)
        assert row["spearman"] == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-9)


@given(seed=st.integers(0, 1000), groups=st.integers(1, 3))
@settings(max_examples=20)
def test_every_draw_is_the_correlation_of_its_points(seed: int, groups: int) -> None:
    """The shortcut through sums of clusters against copying out each draw, with ties and uneven groups."""
    rng = np.random.default_rng(seed)
    task, group = rng.integers(0, 5, 40), rng.integers(0, groups, 40)
    x, y = rng.integers(0, 9, 40).astype(float), rng.integers(0, 9, 40).astype(float)
    draws = resample([f"t{t}" for t in task], 10, seed)
    pearson, spearman = draws.pearson(x, y, group), draws.spearman(x, y, group)
    for b, counts in enumerate(draws.counts.astype(int)):
        rows = np.repeat(np.arange(40), counts[draws.cluster])
        table = pd.DataFrame({"x": x[rows], "y": y[rows]}).groupby(group[rows])
        centred, ranks = table.transform(lambda column: column - column.mean()), table.rank(pct=True)
        ranks -= ranks.groupby(group[rows]).transform("mean")
        if min(centred.std()) > 1e-9:
            assert pearson[b] == pytest.approx(centred.corr().iloc[0, 1], abs=1e-9)
            assert spearman[b] == pytest.approx(ranks.corr().iloc[0, 1], abs=1e-9)


def test_within_takes_out_what_sets_downstream_tasks_apart() -> None:
    pairs = world(downstream=3, runs=9)
    shifted = pairs.assign(
        forgetting=pairs["forgetting"] - 50 * pairs["downstream"].str[1].astype(int), l2=pairs["l2"] + 9 * pairs["downstream"].str[1].astype(int)
    )
    plain, moved = correlations(pairs).set_index("measure"), correlations(shifted).set_index("measure")
    assert moved.loc["l2", "spearman"] < 0 < plain.loc["l2", "spearman"]
    names = ["pearson_within", "pearson_within_low", "spearman_within", "spearman_within_high"]
    np.testing.assert_allclose(moved.loc["l2", names].astype(float), plain.loc["l2", names].astype(float), atol=1e-6)


@given(seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_order_of_rows_and_scale_of_a_measure_change_nothing(seed: int) -> None:
    pairs = world(seed, downstream=2)
    expected = correlations(pairs, n_boot=200, seed=seed)
    for same in (pairs.sample(frac=1, random_state=seed), pairs.assign(l2=pairs["l2"] * 2.0**20, otdd=pairs["otdd"] * 0.25 + 64)):
        pd.testing.assert_frame_equal(correlations(same, n_boot=200, seed=seed), expected, rtol=1e-7)
    turned = correlations(pairs.assign(l2=-pairs["l2"]), n_boot=200, seed=seed).set_index("measure").loc["l2"]
    assert turned["spearman"] == pytest.approx(-expected.set_index("measure").loc["l2", "spearman"])


def test_draws_hang_on_the_seed_alone() -> None:
    pairs = world()
    pd.testing.assert_frame_equal(correlations(pairs, seed=1), correlations(pairs, seed=1))
    assert not correlations(pairs, seed=1).equals(correlations(pairs, seed=2))


def test_intervals_hold_the_estimate_and_noise_holds_zero() -> None:
    table = correlations(world(runs=20, tasks=20, downstream=2)).set_index("measure")
    for name in CORRELATIONS:
        low, value, high = table[f"{name}_low"], table[name], table[f"{name}_high"]
        assert ((low <= value) & (value <= high)).all() and (high - low < 0.4).all()
        assert low["dice"] < 0 < high["dice"] and low["l2"] > 0


def test_share_of_intervals_that_hold_the_truth() -> None:
    """95 % is meant; whole clusters make it nearly so, and drawing single points, which the pairs of a task are not, far less."""
    rng, held = np.random.default_rng(0), {"task": 0, "point": 0}
    for seed in range(100):
        # A slope a task of mean 1 and variance 1/4, x and the noise of variance 1: r = 1 / sqrt(1 * (1 + 1/4 + 1)).
        task = np.repeat(np.arange(25), 40)
        x = rng.normal(size=1000)
        y = rng.choice([0.5, 1.5], 25)[task] * x + rng.normal(size=1000)
        for name, labels in (("task", task), ("point", np.arange(1000) % 250)):
            draws = resample([f"{label:03}" for label in labels], 200, seed).pearson(x, y, np.zeros(1000, dtype=int))
            low, high = interval(draws, 25)
            held[name] += low <= 1 / np.sqrt(2.25) <= high
    assert 0.88 < held["task"] / 100 < 0.99
    assert held["point"] < held["task"]


def test_clusters_are_drawn_as_a_whole() -> None:
    draws = resample(["b", "a", "b", "c"], 500, 0)
    assert draws.cluster.tolist() == [1, 0, 1, 2]
    assert (draws.counts.sum(1) == 3).all() and draws.counts[1:].mean(0) == pytest.approx(1, abs=0.1)
    copies = pd.concat([world(tasks=5)] * 4, ignore_index=True)
    names = [f"{name}{end}" for name in ("pearson", "spearman") for end in ("_low", "_high")]
    np.testing.assert_allclose(correlations(copies)[names], correlations(world(tasks=5))[names], err_msg="copies are no new evidence")


def test_few_clusters_give_no_interval() -> None:
    for count, is_known in ((2, False), (3, True)):
        row = correlations(world(tasks=count)).iloc[0]
        assert np.isfinite(row["pearson"]) and np.isfinite(row["pearson_low"]) == is_known
    by_downstream = correlations(world(downstream=2), cluster="downstream").iloc[0]
    assert np.isnan(by_downstream["spearman_low"]) and np.isfinite(by_downstream["spearman"])
    assert np.isfinite(correlations(world(downstream=3), cluster="downstream").iloc[0]["spearman_within_low"])


def test_what_is_undefined_is_nan_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = correlations(by_hand([1.0, 2.0, 3.0, 5.0], same=[0.1] * 4, gone=[np.nan] * 4, one=[np.nan, 1.0, np.nan, np.nan], l2=[0.1, 0.2, 0.4, 0.3]))
        still = correlations(by_hand([0.3] * 4, l2=[0.1, 0.2, 0.4, 0.3]))
    shown = table.set_index("measure")[["pearson", "spearman", "pearson_low", "spearman_high"]]
    assert shown.loc[["same", "gone", "one"]].isna().all(axis=None) and shown.loc["l2"].notna().all()
    assert table["points"].tolist() == [4, 0, 1, 4]
    assert still[["pearson", "spearman"]].isna().all(axis=None)
    assert is_constant(np.full(9, 0.1)) and is_constant(np.zeros(0)) and not is_constant(np.array([0.0, 1e-30]))


def test_thousand_points_take_under_a_second() -> None:
    pairs = world(runs=111, downstream=3)
    pairs[["a", "b", "c"]] = pairs[["otdd", "l2", "dice"]] ** 2
    begin = time.process_time()
    correlations(pairs)
    assert time.process_time() - begin < 1


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UserError, match="cluster 'run' cannot be drawn; choose task or downstream"):
        correlations(world(), cluster="run")
    with pytest.raises(UserError, match="n_boot = 0 .* 1 draw or more"):
        correlations(world(), n_boot=0)
    with pytest.raises(UserError, match="no drift 'cka'; choose among otdd, l2, dice"):
        advantage(world(), "cka")


# --- one measure against another --------------------------------------------------------------------------------------


def test_a_measure_has_no_advantage_over_itself() -> None:
    pairs = world(downstream=2)
    table = advantage(pairs.assign(copy=pairs["l2"]), "copy", "l2")
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)
    assert "CKA".lower() not in measures_of(pairs) and title_of("cka") == "1 - CKA" and title_of("my_drift") == "my drift"
    assert "is not told apart from L2 in foretelling forgetting here" in verdict(pairs.assign(otdd=pairs["l2"]))


def test_advantage_is_the_difference_of_absolute_correlations() -> None:
    pairs = world(downstream=2)
    alone = correlations(pairs).set_index("measure")
    table, turned = advantage(pairs).set_index("correlation"), advantage(pairs.assign(otdd=-pairs["otdd"])).set_index("correlation")
    for name in CORRELATIONS:
        assert table.loc[name, "measure"] == pytest.approx(alone.loc["otdd", name])
        assert table.loc[name, "difference"] == pytest.approx(abs(alone.loc["otdd", name]) - abs(alone.loc["l2", name]))
        assert turned.loc[name, "measure"] == pytest.approx(-table.loc[name, "measure"])
    pd.testing.assert_frame_equal(turned.drop(columns="measure"), table.drop(columns="measure"))


def test_advantage_reads_only_pairs_that_have_both() -> None:
    pairs = world()
    pairs.loc[pairs["run"] == "r0", "otdd"] = np.nan
    pd.testing.assert_frame_equal(advantage(pairs), advantage(pairs[pairs["run"] != "r0"]))
    assert advantage(pairs)["points"].tolist() == [45] * 4
    assert "from 45 pairs of 5 runs and 9 held-out tasks" in verdict(pairs)


def test_verdict_follows_the_interval() -> None:
    pairs = world(runs=12, tasks=12)
    row = advantage(pairs).set_index("correlation").loc["spearman"]
    better = verdict(pairs)
    assert row["low"] > 0 and better.startswith("OTDD foretells forgetting better than L2 here: Spearman ")
    assert (
        f"difference {row['difference']:.2f} (95 % interval {row['low']:.2f} to {row['high']:.2f}), from 144 pairs of 12 runs and 12 held-out tasks" in better
    )
    assert verdict(pairs, "l2", "otdd").startswith("L2 foretells forgetting worse than OTDD here")
    rng = np.random.default_rng(0)
    alike = pairs.assign(**{name: pairs["forgetting"] + rng.normal(size=len(pairs)) for name in ("otdd", "l2")})
    assert verdict(alike).startswith("OTDD is not told apart from L2 in foretelling forgetting here: Spearman ")


def test_verdict_tells_what_qualifies_it() -> None:
    assert "too narrow" in verdict(world(tasks=9)) and "too narrow" not in verdict(world(tasks=10))
    assert "Within each downstream task" in verdict(world(downstream=2)) and "Within" not in verdict(world())
    pairs = world()
    assert "absolute values" in verdict(pairs.assign(l2=-pairs["l2"])) and "absolute" not in verdict(pairs)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"otdd": 0.5}, "OTDD is the same in all pairs"),
        ({"l2": 0.5}, "L2 is the same in all pairs"),
        ({"forgetting": 0.0}, "forgetting is the same in all pairs"),
        ({"task": "digits"}, "that takes 3 held-out tasks or more, and these pairs have 1"),
        ({"otdd": np.nan}, "that takes 3 held-out tasks or more, and these pairs have 0"),
    ],
)
def test_verdict_says_that_it_cannot_be_told(change: dict, why: str) -> None:
    assert verdict(world().assign(**change)) == f"Whether OTDD foretells forgetting better than L2 cannot be told here: {why}."


@given(seed=st.integers(0, 500), runs=st.integers(1, 3), tasks=st.integers(1, 4), downstream=st.integers(1, 3))
@settings(max_examples=15)
def test_verdict_never_says_nan(seed: int, runs: int, tasks: int, downstream: int) -> None:
    pairs = world(seed, runs=runs, tasks=tasks, downstream=downstream)
    pairs[["forgetting", "otdd", "l2"]] = pairs[["forgetting", "otdd", "l2"]].round(0)
    said = [verdict(pairs, n_boot=n_boot, cluster=cluster, seed=seed) for n_boot in (1, 50) for cluster in ("task", "downstream")]
    assert not any("nan" in words.lower() or "-0.00" in words for words in said)


def test_verdict_needs_a_draw_in_which_both_are_defined() -> None:
    pairs = by_hand([0.0, 1.0, 2.0], l2=[0.0, 0.0, 1.0], otdd=[0.0, 0.0, 1.0])
    said = {verdict(pairs, n_boot=1, seed=seed).partition(": ")[2] for seed in range(20)}
    assert "no draw of tasks has both correlations." in said and not any("nan" in words for words in said)
