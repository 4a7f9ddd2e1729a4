"""Whether a distance between two encodings foretells forgetting: pairs of both, their correlations, and one distance against another."""

from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np
import pandas as pd
from jaxtyping import Float

from .resampling import MIN_CLUSTERS, interval, is_constant, resample
from .types import RunRecord, UserError

TITLES = {"l2": "L2", "otdd": "OTDD", "cka": "1 - CKA", "ldifs": "LDIFS", "neighbors_lost": "neighbours lost"}
"""Measures as papers write them; others go by their own name."""
CLUSTERS = {"task": "held-out", "downstream": "downstream"}
"""What can be drawn as a whole: the held-out task of a pair, or the task that its run was fine-tuned on."""
FEW_CLUSTERS = 10
"""With fewer, intervals come out too narrow, and a verdict says so: of simulated ones 5 clusters held the truth in 85 %, 9 in 90 %."""
UNMOVED = 1e-6
"""Drift up to which nothing moved; the sums inside a distance leave less than this of two equal encodings."""
CORRELATIONS = ("pearson", "spearman", "pearson_within", "spearman_within")
KEYS = ("run", "method", "downstream", "seed", "task", "forgetting")


# --- pairs ------------------------------------------------------------------------------------------------------------


def drift_pairs(records: Iterable[RunRecord], delta: str = "delta_lp") -> pd.DataFrame:
    """Returns forgetting beside every drift measure: one row a run and held-out task, whose domains are averaged first.

    Runs in which nothing moved are left out (`unmoved_runs` names them): they would all lie on the origin.

    Args:
        records: Finished runs.
        delta: Which change counts: ``delta_lp``, as in the claim on OTDD, or ``delta_zs``.

    Returns:
        Columns run, method, downstream, seed, task, forgetting, and one for each drift measure that any run has.
        Forgetting is the change with its sign turned, in percentage points, so that it grows with the drift. NaN where a run
        did not measure a drift; pairs without any are left out.

    Raises:
        UserError: If the metric is no change.

    Example:
        A task loses 10 points in one domain and 20 in the other: 15.

        >>> from robustft.types import RunConfig, Score
        >>> rows = [("x", "delta_lp", -0.1), ("y", "delta_lp", -0.2), ("x", "drift_l2", 0.5), ("y", "drift_l2", 0.7)]
        >>> scores = tuple(Score("digits", domain, metric, value, 9) for domain, metric, value in rows)
        >>> drift_pairs([RunRecord("a", RunConfig("m", "food", "ft"), True, scores)]).iloc[0].to_dict()
        {'run': 'a', 'method': 'ft', 'downstream': 'food', 'seed': 0, 'task': 'digits', 'forgetting': 15.0, 'l2': 0.6}
    """
    if not delta.startswith("delta_"):
        raise UserError(f"metric {delta!r} is no change; give delta_lp or delta_zs.")
    records = list(records)
    still = set(unmoved_runs(records))
    rows = [row for record in records if record.run_id not in still for row in _pairs_of(record, delta)]
    return pd.DataFrame(rows, columns=list(KEYS) if not rows else None)


def _pairs_of(record: RunRecord, delta: str) -> Iterable[dict]:
    config = record.config
    for task, means in _task_means(record).items():
        drifts = {metric.removeprefix("drift_"): value for metric, value in means.items() if metric.startswith("drift_")}
        if delta in means and drifts:
            # Rounded, because equal changes that differ in their last bit would not count as ties.
            own = (record.run_id, config.method, config.dataset, config.seed, task, round(0.0 - 100 * means[delta], 9))
            yield dict(zip(KEYS, own, strict=True)) | drifts


def _task_means(record: RunRecord) -> dict[str, dict[str, float]]:
    """Returns changes and drifts by held-out task, each the mean over its domains."""
    values: dict[str, dict[str, list[float]]] = {}
    for score in record.scores:
        if score.dataset != record.config.dataset and score.metric.startswith(("delta_", "drift_")):
            values.setdefault(score.dataset, {}).setdefault(score.metric, []).append(score.value)
    return {task: {metric: fmean(v) for metric, v in own.items()} for task, own in values.items()}


def unmoved_runs(records: Iterable[RunRecord]) -> list[str]:
    """Returns the runs whose tower did not move: they measured drift, and all of it is 0."""

    def drifts(record: RunRecord) -> list[float]:
        return [abs(value) for means in _task_means(record).values() for metric, value in means.items() if metric.startswith("drift_")]

    return [record.run_id for record in records if (own := drifts(record)) and max(own) <= UNMOVED]


def measures_of(pairs: pd.DataFrame) -> list[str]:
    """Returns the drift measures that some pairs have."""
    return [name for name in pairs.columns if name not in KEYS]


def title_of(measure: str) -> str:
    """Returns what a measure is called on a page."""
    return TITLES.get(measure, measure.replace("_", " "))


# --- correlations -----------------------------------------------------------------------------------------------------


def correlations(pairs: pd.DataFrame, *, cluster: str = "task", n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Returns the correlation of forgetting with every drift measure, with 95 % intervals.

    Pooled: over all pairs. Within: after both are centred within each downstream task, so that what sets those apart counts
    for nothing (for Spearman: ranks within the downstream task, as shares of its pairs).

    The interval is the percentile bootstrap of whole clusters: tasks are drawn with replacement, all pairs of a task
    together, so it says how far other held-out tasks may lead, with these runs. Draws in which a correlation is undefined
    are left out.

    Args:
        pairs: From `drift_pairs`.
        cluster: ``task`` draws held-out tasks, ``downstream`` the tasks that were fine-tuned on. The latter is the better
            question, but needs many of them.
        n_boot: Draws.
        seed: Of the draws; rows in another order give the same ones.

    Returns:
        A row a measure: measure, points, runs, tasks, then pearson, spearman, pearson_within and spearman_within, each with
        its ``_low`` and ``_high``. NaN where a variable is constant or there are under 2 pairs; within also NaN where there
        is one downstream task, since it would be the pooled one; intervals also NaN with under 3 clusters.

    Raises:
        UserError: If the cluster is unknown or there is no draw.

    Example:
        Forgetting rises with L2 in all but one of three steps. Ranks 1 2 4 3: 1 - 6 * 2 / (4 * 15) = 0.8.

        >>> pairs = pd.DataFrame({"run": "a", "downstream": "food", "task": list("wxyz"), "forgetting": [0, 1, 5, 3], "l2": [1, 2, 3, 4]})
        >>> correlations(pairs)[["measure", "points", "tasks", "spearman"]].round(3).to_dict("records")
        [{'measure': 'l2', 'points': 4, 'tasks': 4, 'spearman': 0.8}]

    Source:
        Proxy-FDA, arXiv:2505.24088, which states the direction for OTDD and L2 but no coefficient. Clusters: Cameron, Gelbach
        and Miller 2008, doi:10.1162/rest.90.3.414. Differs: drawn by held-out task unless asked, as there are few downstream ones.
    """
    found = []
    for measure in measures_of(pairs):
        rows = pairs.dropna(subset=[measure])
        row: dict = {"measure": measure, **_counts(rows)}
        for name, draws in _correlation_draws(rows, [measure], cluster, n_boot, seed).items():
            low, high = interval(draws[:, 0], _clusters(rows, cluster).nunique())
            row |= {name: draws[0, 0], f"{name}_low": low, f"{name}_high": high}
        found.append(row)
    names = [f"{name}{end}" for name in CORRELATIONS for end in ("", "_low", "_high")]
    return pd.DataFrame(found, columns=["measure", "points", "runs", "tasks", *names])


def advantage(pairs: pd.DataFrame, measure: str = "otdd", yardstick: str = "l2", *, cluster: str = "task", n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Returns how much better one measure foretells forgetting than another: the difference of their absolute correlations.

    Both are read on the pairs that have both, and on the same draws, so what moves both cancels.

    Args:
        pairs: From `drift_pairs`.
        measure: The one in question.
        yardstick: The one that it is held against.
        cluster: As in `correlations`, with ``n_boot`` and ``seed``.
        n_boot: Draws.
        seed: Of the draws.

    Returns:
        A row a correlation (pearson, spearman, and both within): correlation, measure, yardstick (their signed values),
        difference, low, high, points, runs, tasks. NaN as in `correlations`.

    Raises:
        UserError: If the pairs lack a measure; names those there are.

    Example:
        A measure has no advantage over itself.

        >>> pairs = pd.DataFrame({"run": "a", "downstream": "food", "task": list("wxyz"), "forgetting": [0, 1, 5, 3], "l2": [1, 2, 3, 4]})
        >>> advantage(pairs, "l2", "l2").loc[1, ["measure", "difference", "low", "high"]].astype(float).round(3).tolist()
        [0.8, 0.0, 0.0, 0.0]
    """
    lacking = [name for name in (measure, yardstick) if name not in measures_of(pairs)]
    if lacking:
        raise UserError(f"the pairs have no drift {lacking[0]!r}; choose among {', '.join(measures_of(pairs)) or 'none: no run measured any'}.")
    rows, found = pairs.dropna(subset=[measure, yardstick]), []
    for name, draws in _correlation_draws(rows, [measure, yardstick], cluster, n_boot, seed).items():
        difference = np.abs(draws[:, 0]) - np.abs(draws[:, 1])
        low, high = interval(difference, _clusters(rows, cluster).nunique())
        row = {"correlation": name, "measure": draws[0, 0], "yardstick": draws[0, 1], "difference": difference[0], "low": low, "high": high}
        found.append(row | _counts(rows))
    return pd.DataFrame(found)


def _correlation_draws(rows: pd.DataFrame, measures: Sequence[str], cluster: str, n_boot: int, seed: int) -> dict[str, Float[np.ndarray, "b m"]]:
    """Returns each correlation of forgetting with each measure, in the sample (first) and in every draw."""
    draws, forgetting = resample(_clusters(rows, cluster).tolist(), n_boot, seed), rows["forgetting"].to_numpy(dtype=float)
    downstream = np.unique(rows["downstream"].to_numpy(dtype=str), return_inverse=True)[1]
    found = {}
    for name in CORRELATIONS:
        is_within = name.endswith("_within")
        correlation = draws.pearson if name.startswith("pearson") else draws.spearman
        group = downstream if is_within else np.zeros_like(downstream)
        found[name] = np.stack([correlation(rows[measure].to_numpy(dtype=float), forgetting, group) for measure in measures], axis=1)
        if is_within and not downstream.any():
            found[name][:] = np.nan  # one downstream task: the pooled correlation once more
    return found


def _clusters(rows: pd.DataFrame, cluster: str) -> pd.Series:
    """Returns what each pair is drawn with."""
    if cluster not in CLUSTERS:
        raise UserError(f"cluster {cluster!r} cannot be drawn; choose {' or '.join(CLUSTERS)}.")
    return rows[cluster]


def verdict(pairs: pd.DataFrame, measure: str = "otdd", yardstick: str = "l2", *, cluster: str = "task", n_boot: int = 1000, seed: int = 0) -> str:
    """Says whether one measure foretells forgetting better than another, by Spearman over all pairs, and what Pearson says.

    Better or worse only if the interval of `advantage` leaves out 0. The arguments are those of `advantage`.

    Example:
        >>> pairs = pd.DataFrame({"run": "a", "downstream": "food", "task": ["x", "y"], "forgetting": [0, 1], "l2": [1, 2], "otdd": [2, 1]})
        >>> verdict(pairs)
        'Whether OTDD foretells forgetting better than L2 cannot be told here: that takes 3 held-out tasks or more, and these pairs have 2.'
        >>> verdict(pairs.drop(columns="otdd"))
        'These runs did not measure OTDD, so it cannot be held against L2.'
    """
    ours, theirs = title_of(measure), title_of(yardstick)
    lacking = [title_of(name) for name in (measure, yardstick) if name not in measures_of(pairs)]
    if lacking:
        return f"These runs did not measure {lacking[0]}, so it cannot be held against {theirs if lacking[0] == ours else ours}."
    rows = pairs.dropna(subset=[measure, yardstick])
    table = advantage(rows, measure, yardstick, cluster=cluster, n_boot=n_boot, seed=seed).set_index("correlation")
    hindrance = _hindrance(rows, table, [measure, yardstick], cluster)
    if hindrance:
        return f"Whether {ours} foretells forgetting better than {theirs} cannot be told here: {hindrance}."
    size = f"{len(rows)} pairs of {_plural(rows['run'].nunique(), 'run')} and {_plural(rows['task'].nunique(), 'held-out task')}"
    spearman, known = table.loc["spearman"], table.dropna()
    words = f"{ours} {_claim(spearman, theirs)} here: Spearman {_against(spearman, '95 % interval ')}, from {size}; Pearson {_against(table.loc['pearson'])}."
    if "spearman_within" in known.index:
        words += f" Within each downstream task: Spearman {_against(table.loc['spearman_within'])}."
    if (known[["measure", "yardstick"]] < 0).to_numpy().any():
        words += " Below 0, more distance went with less forgetting; the differences are between absolute values."
    n_clusters = _clusters(rows, cluster).nunique()
    return words + (f" With {n_clusters} {CLUSTERS[cluster]} tasks the intervals are likely too narrow." if n_clusters < FEW_CLUSTERS else "")


def _hindrance(rows: pd.DataFrame, table: pd.DataFrame, measures: Sequence[str], cluster: str) -> str | None:
    """Says what stands in the way of a comparison."""
    n_clusters = _clusters(rows, cluster).nunique()
    if n_clusters < MIN_CLUSTERS:
        return f"that takes {MIN_CLUSTERS} {CLUSTERS[cluster]} tasks or more, and these pairs have {n_clusters}"
    same = [name for name in (*measures, "forgetting") if is_constant(rows[name].to_numpy(dtype=float))]
    if same:
        return f"{title_of(same[0])} is the same in all pairs"
    return "no draw of tasks has both correlations" if table.loc[["pearson", "spearman"]].isna().to_numpy().any() else None


def _claim(difference: pd.Series, yardstick: str) -> str:
    if difference["low"] <= 0 <= difference["high"]:
        return f"is not told apart from {yardstick} in foretelling forgetting"
    return f"foretells forgetting {'better' if difference['low'] > 0 else 'worse'} than {yardstick}"


def _against(row: pd.Series, lead: str = "") -> str:
    # What rounds to 0 is written without a sign.
    ours, theirs, difference, low, high = (f"{round(row[name], 2) + 0.0:.2f}" for name in ("measure", "yardstick", "difference", "low", "high"))
    return f"{ours} against {theirs}, difference {difference} ({lead}{low} to {high})"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("s" if count != 1 else "")


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    return {"points": len(rows), "runs": rows["run"].nunique(), "tasks": rows["task"].nunique()}
