"""Drift is 0 where nothing moved and grows from there; OTDD and its parts by hand, by law, and against POT."""

import inspect
import tracemalloc
from typing import Any

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustft.drift._bures import bures, class_gaussians, squared_distances
from robustft.drift._transport import entropic, entropic_self, ground_cost, half_otdd, labelled_points
from robustft.drift.cka import cka
from robustft.drift.l2 import l2
from robustft.drift.ldifs import ldifs
from robustft.drift.otdd import otdd, otdd_result, sampled_rows
from robustft.drift.weights import weights, weights_by_layer
from robustft.graph import unit_rows
from robustft.registry import discover
from robustft.types import UserError

ENTRIES = sorted(discover("drift"))
SEEDS = st.integers(0, 10_000)
few = settings(max_examples=25)


def table(seed: int, n: int = 30, d: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def labelled(seed: int, n: int = 30, d: int = 5, c: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Points around class centres; every class has a sample or more."""
    labels = np.random.default_rng(seed).permutation(np.arange(n) % c)
    return table(seed + 1, c, d)[labels] + 0.5 * table(seed, n, d), labels


def rotation(seed: int, d: int) -> np.ndarray:
    return np.linalg.qr(table(seed, d, d))[0]


def measure(name: str, x: np.ndarray, y: np.ndarray) -> float:
    """Gives any measure what its file says that it looks at, made of two tables."""
    entry = discover("drift")[name]
    kind, half = entry.declares("INPUT", "features"), len(x) // 2
    labels = np.arange(len(x)) % 2
    arguments: dict[str, tuple[Any, ...]] = {
        "features": (x, y),
        "labelled": (x, labels, y, labels),
        "taps": tuple([torch.from_numpy(part[:, :, None]) for part in (t, t[:half])] for t in (x, y)),
        "theta": tuple({"a.weight": torch.from_numpy(t), "a.n": torch.tensor(len(t)), "b.weight": torch.from_numpy(t[0])} for t in (x, y)),
    }
    return entry.function(*arguments[kind])


@pytest.mark.parametrize("name", ENTRIES)
@few
@given(seed=SEEDS, n=st.integers(11, 30), d=st.integers(1, 6), copies=st.sampled_from([1, 3]))
def test_drift_is_a_number_and_zero_where_nothing_moved(name: str, seed: int, n: int, d: int, copies: int) -> None:
    x, y = (np.repeat(t, copies, axis=0) for t in (table(seed, n, d), table(seed + 1, n, d)))
    for moved in (measure(name, x, y), measure(name, x, np.ones_like(x)), measure(name, np.ones_like(x), x)):
        assert isinstance(moved, float) and np.isfinite(moved) and moved >= 0
    assert measure(name, x, x) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ENTRIES)
def test_drift_grows(name: str) -> None:
    x, step = table(0, 60, 8), table(1, 60, 8)
    values = [measure(name, x, x + size * step) for size in (0.0, 0.1, 0.3, 1.0)]
    assert (np.diff(values) > 1e-4).all()


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_low_precision_is_measured_in_high(name: str, dtype: type) -> None:
    x, y = table(0, 40, 8).astype(dtype), table(1, 40, 8).astype(dtype)
    assert measure(name, x, y) == pytest.approx(measure(name, x.astype(np.float64), y.astype(np.float64)), rel=1e-5)
    assert measure(name, x, x) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("is_after", [False, True])
def test_what_is_not_finite_is_refused_by_name(name: str, bad: float, is_after: bool) -> None:
    tables = [table(0), table(1)]
    tables[is_after][[3, 17], 2] = bad
    kind = discover("drift")[name].declares("INPUT", "features")
    named = {"taps": rf"taps_{is_after:d}\[0\] of images \[3, 17\] \(2 in all\) are", "theta": "'a.weight' is"}
    with pytest.raises(UserError, match=named.get(kind, r"of rows \[3, 17\] \(2 in all\) are") + " not finite"):
        measure(name, *tables)


@pytest.mark.parametrize("function", [l2, cka])
def test_other_images_are_refused(function: Any) -> None:
    for message, x, y in (
        ("features of 30 and 1 images cannot be compared", table(0), table(1, 1)),
        ("features of 0 and 0 images", table(0, 0), table(0, 0)),
        (r"features_1 of shape \(30,\) are not a table", table(0), table(0)[:, 0]),
    ):
        with pytest.raises(UserError, match=message):
            inspect.unwrap(function)(x, y)
    with pytest.raises(UserError, match="features of 5 and 4 numbers an image"):
        inspect.unwrap(l2)(table(0), table(0, 30, 4))


@pytest.mark.parametrize("function", [l2, cka])
def test_large_tables_are_never_copied_whole(function: Any) -> None:
    x, y = (table(seed, 50_000, 32).astype(np.float32) for seed in (0, 1))
    tracemalloc.start()
    value = function(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000 * 32 * 8 and value == pytest.approx(function(x.astype(np.float64), y.astype(np.float64)), abs=1e-9)


@given(seed=SEEDS, n=st.integers(3, 30), d=st.integers(2, 6), scale=st.floats(1e-3, 1e3))
def test_cka_equals_the_definition_on_pairs_of_images_whatever_the_rotation_and_scale(seed: int, n: int, d: int, scale: float) -> None:
    x, y = table(seed, n, d), table(seed + 1, n, d)
    center = np.eye(n) - 1 / n
    own, other = (center @ unit_rows(t) @ unit_rows(t).T @ center for t in (x, y))
    by_definition = 1 - (own * other).sum() / np.linalg.norm(own) / np.linalg.norm(other)
    assert cka(x, y) == pytest.approx(by_definition, abs=1e-9) == cka(scale * y @ rotation(seed, d), x)
    assert cka(x, scale * x @ rotation(seed, d)) == pytest.approx(0, abs=1e-12)


def test_cka_of_constant_features_is_defined() -> None:
    constant = np.full((7, 3), 0.1, np.float32)
    assert cka(constant, 3 * constant) == 0 and cka(constant, table(0, 7, 3)) == 1 == cka(table(0, 7, 3), constant)
    assert cka(table(0, 1), table(1, 1)) == 0 and 0 < cka(table(0), table(1, 30, 4)) < 1  # the width may change


@given(seed=SEEDS, tokens=st.integers(1, 6))
def test_ldifs_is_the_mean_of_every_column_of_every_depth(seed: int, tokens: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    taps_0, taps_1 = ([torch.randn(3, tokens + depth, 2, generator=draw) for depth in (0, 2)] for _ in range(2))
    columns = []
    for tap_0, tap_1 in zip(taps_0, taps_1, strict=True):
        for a, b in zip(tap_0.mT.reshape(-1, tap_0.shape[1]), tap_1.mT.reshape(-1, tap_0.shape[1]), strict=True):
            columns.append((a / a.norm() - b / b.norm()).square().sum().item() / 4)
    assert ldifs(taps_0, taps_1) == pytest.approx(np.mean(columns), rel=1e-5)
    assert ldifs(taps_0, [-tap for tap in taps_0]) == pytest.approx(1, abs=1e-6)
    assert ldifs(taps_0, taps_1) <= 1 and ldifs(taps_0, [3 * tap for tap in taps_0]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shapes", [[], [(2, 3, 4)], [(2, 3, 4), (2, 4, 4)]])
def test_other_taps_are_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(UserError, match=r"taps of shapes \[\(2, 3, 4\), \(2, 3, 4\)\] and .* cannot be compared"):
        ldifs([torch.ones(2, 3, 4)] * 2, [torch.ones(shape) for shape in shapes])
    with pytest.raises(UserError, match=r"taps_0\[0\] hold nothing"):
        ldifs([torch.ones(0, 3, 4)], [torch.ones(0, 3, 4)])


def test_weights_by_hand_and_those_of_other_models_refused() -> None:
    before = {"proj": torch.tensor([0.0]), "b.1.weight": torch.tensor([3.0, 0.0]), "b.1.bias": torch.tensor([4.0]), "a.weight": torch.tensor([2.0])}
    after = {"a.weight": torch.tensor([2.0]), "proj": torch.tensor([7.0]), "b.1.weight": torch.tensor([3.0, 3.0]), "b.1.bias": torch.tensor([8.0])}
    count = {"b.1.num_batches_tracked": torch.tensor(5)}
    layers = weights_by_layer(before | count, after | count)
    assert list(layers.items()) == [("proj", 1.0), ("b.1", 1.0), ("a", 0.0)]  # from zero to something is 1
    assert weights(before, after) == pytest.approx(((49 + 25) / 29) ** 0.5)
    assert weights({}, {}) == 0 and weights(count, {"b.1.num_batches_tracked": torch.tensor(9)}) == 0
    with pytest.raises(UserError, match="the two models differ in 'b'"):
        weights({"a": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(1)})
    with pytest.raises(UserError, match=r"'a' has shape \(1,\) in one model and \(2,\) in the other"):
        weights({"a": torch.ones(1)}, {"a": torch.ones(2)})


def roots(seed: int, k: int, d: int, rank: int, floor: float) -> np.ndarray:
    """Matrices R of covariances R R^T: some columns for a class's few samples, and a floor."""
    factors = np.random.default_rng(seed).normal(size=(k, d, rank)) / d**0.5
    return np.concatenate([factors, np.broadcast_to(floor**0.5 * np.eye(d), (k, d, d))], axis=2)


@given(seed=SEEDS, ranks=st.tuples(st.integers(0, 6), st.integers(0, 6)), floors=st.tuples(*[st.sampled_from([0.0, 0.01, 1.0])] * 2))
def test_bures_is_that_of_pot_and_of_singular_values(seed: int, ranks: tuple[int, int], floors: tuple[float, float]) -> None:
    """Ranks 2 + 2 of 6 go the cheap way, 3 + 3 the dense one. Without a floor covariances are singular, and POT itself is off by 1e-8."""
    r, q = (roots(seed + i, 2 + i, 6, ranks[i], floors[i]) for i in range(2))
    m, n, s, t = map(torch.from_numpy, (table(seed, 2, 6), table(seed + 1, 3, 6), r @ r.swapaxes(1, 2), q @ q.swapaxes(1, 2)))
    found = bures(m, s, n, t)
    for i, j in np.ndindex(2, 3):
        exact = (m[i] - n[j]).square().sum() + s[i].trace() + t[j].trace() - 2 * np.linalg.svd(r[i].T @ q[j], compute_uv=False).sum()
        assert found[i, j].item() == pytest.approx(exact.item(), abs=2e-8)
        theirs = float(ot.gaussian.bures_wasserstein_distance(m[i], n[j], s[i], t[j])) ** 2
        assert found[i, j].item() == pytest.approx(theirs, rel=1e-8, abs=1e-8 if all(floors) else 1e-6)
    np.testing.assert_allclose(found, bures(n, t, m, s).T, atol=1e-8)


@given(seed=SEEDS, k=st.integers(1, 5), d=st.integers(1, 8))
def test_bures_of_axis_aligned_gaussians_is_that_of_deviations(seed: int, k: int, d: int) -> None:
    means, deviations = table(seed, k, d), np.abs(table(seed + 1, k, d))
    m, s = torch.from_numpy(means), torch.from_numpy(deviations**2).diag_embed()
    by_hand = [np.square(means - means[i]).sum(1) + np.square(deviations - deviations[i]).sum(1) for i in range(k)]
    np.testing.assert_allclose(bures(m, s, m, s), by_hand, atol=1e-7)


@given(seed=SEEDS, n=st.integers(1, 14), shrinkage=st.sampled_from([0.0, 0.1, 1.0]))
def test_class_gaussians_hold_the_shrunk_covariance(seed: int, n: int, shrinkage: float) -> None:
    x = table(seed, n + 2, 5)
    fitted = class_gaussians(torch.from_numpy(x), torch.tensor([0] * n + [1] * 2), shrinkage)
    for k, rows in enumerate((x[:n], x[n:])):
        biased = np.cov(rows.T, bias=True)
        found = fitted.factors[k] @ fitted.factors[k].T + fitted.floors[k] * torch.eye(5)
        np.testing.assert_allclose(found, (1 - shrinkage) * biased + shrinkage * np.trace(biased) / 5 * np.eye(5), atol=1e-12)
        assert fitted.traces()[k] == pytest.approx(np.trace(biased), abs=1e-12)


def test_classes_of_any_size_meet_in_one_table() -> None:
    """Many blocks; single points, duplicates, low and full rank, sorted inside by rank and answered in their own order."""
    sizes = [9, 1, 300, 2, 40, 5, 1, 80]
    x = torch.from_numpy(table(0, sum(sizes), 40))
    x[9 + 1 + 300 : 9 + 1 + 300 + 2] = 1.0
    classes = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    fitted = class_gaussians(x, classes, 0.1)
    covariances = fitted.factors @ fitted.factors.mT + fitted.floors[:, None, None] * torch.eye(40)
    alone = [[bures(fitted.means[[i]], covariances[[i]], fitted.means[[j]], covariances[[j]]).item() for j in range(8)] for i in range(8)]
    np.testing.assert_allclose(squared_distances(fitted, fitted), alone, atol=1e-9)


@few
@given(seed=SEEDS, n=st.integers(4, 24), c=st.integers(1, 4), shrinkage=st.sampled_from([0.0, 0.1, 1.0]))
def test_otdd_is_symmetric_where_pca_keeps_every_dimension(seed: int, n: int, c: int, shrinkage: float) -> None:
    (x, labels), (y, others) = labelled(seed, n + 4, 4, c), labelled(seed + 7, n + 6, 4, c)
    there, back = otdd(x, labels, y, others, shrinkage=shrinkage), otdd(y, others, x, labels, shrinkage=shrinkage)
    assert there == pytest.approx(back, abs=1e-8) and there > 0
    assert otdd(x, labels, x, labels, shrinkage=shrinkage) == pytest.approx(0, abs=1e-8)


@few
@given(seed=SEEDS, c=st.integers(1, 5), size=st.floats(0.01, 3), n_components=st.integers(1, 5))
def test_otdd_without_shrinkage_is_at_most_the_mean_squared_distance(seed: int, c: int, size: float, n_components: int) -> None:
    x, labels = labelled(seed, c=c)
    y = x + size * table(seed + 3)
    assert otdd(x, labels, y, labels, shrinkage=0.0, n_components=n_components) <= np.square(unit_rows(x) - unit_rows(y)).sum(1).mean() + 1e-8


@few
@given(seed=SEEDS, c=st.integers(1, 5))
def test_images_that_change_places_in_their_class_are_no_drift(seed: int, c: int) -> None:
    x, labels = labelled(seed, c=c)
    swapped = x.copy()
    for label in range(c):
        swapped[labels == label] = np.roll(x[labels == label], 1, axis=0)
    assert otdd(x, labels, swapped, labels) == pytest.approx(0, abs=1e-8) and l2(x, swapped) > 0.1


@few
@given(seed=SEEDS, length=st.floats(0.01, 3), exact_samples=st.sampled_from([0, 2000]))
def test_a_translation_costs_its_squared_length(seed: int, length: float, exact_samples: int) -> None:
    """After normalisation and PCA, since unit rows have nowhere to go; each halved term pays half. Debiased, Sinkhorn pays it exactly too."""
    (x, labels), v = labelled(seed), table(seed + 2, 1)
    v *= length / np.linalg.norm(v)
    before, after = labelled_points(x, labels, 0.1), labelled_points(x + v, labels, 0.1)
    assert half_otdd(before, after, exact_samples, 0.5)[0] == pytest.approx(length**2, rel=1e-6 if exact_samples else 1e-3)


def test_otdd_sees_rotations_and_is_not_symmetric_where_pca_drops_dimensions() -> None:
    (x, labels), (y, others), turn = labelled(0), labelled(7), rotation(1, 5)
    assert otdd(x, labels, x @ turn, labels) > 0.1 and cka(x, x @ turn) < 1e-9
    assert abs(otdd(x, labels, y, others, n_components=2) - otdd(y, others, x, labels, n_components=2)) > 1e-3


def test_otdd_is_that_of_pot_and_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    (x, labels), y = labelled(0, 60, 12, 4), labelled(0, 60, 12, 4)[0] + 0.7 * table(5, 60, 12)
    pca = PCA(6).fit(unit_rows(x))
    a, b = pca.transform(unit_rows(x)), pca.transform(unit_rows(y))
    shrunk = [[0.9 * s + 0.1 * np.trace(s) / 6 * np.eye(6) for s in (np.cov(t[labels == k].T, bias=True) for k in range(4))] for t in (a, b)]
    means = [[t[labels == k].mean(0) for k in range(4)] for t in (a, b)]
    w = [[ot.gaussian.bures_wasserstein_distance(means[0][i], means[1][j], shrunk[0][i], shrunk[1][j]) ** 2 for j in range(4)] for i in range(4)]
    cost = ot.dist(a, b) / 2 + np.array(w)[np.ix_(labels, labels)] / 2
    result = otdd_result(x, labels, y, labels, n_components=6)
    assert result.value == pytest.approx(ot.emd2([], [], cost), rel=1e-9) == otdd(x, labels, y, labels, n_components=6)
    assert result.variance_kept == pytest.approx(pca.explained_variance_ratio_.sum())
    assert (result.n_0, result.n_1, result.n_classes, result.n_components, result.solver, result.epsilon, result.skipped) == (60, 60, 4, 6, "exact", 0.0, 0)


@few
@given(seed=SEEDS, epsilon=st.sampled_from([0.5, 0.1, 0.03]), n=st.integers(5, 25))
def test_entropic_value_is_that_of_pot(seed: int, epsilon: float, n: int) -> None:
    cost = ot.dist(table(seed, n), table(seed + 1, 15)) / 10
    theirs = ot.solve(cost, reg=epsilon, reg_type="KL", max_iter=100_000, tol=1e-10).value
    assert entropic(torch.from_numpy(cost), epsilon) == pytest.approx(theirs, rel=1e-4)
    own = ot.dist(table(seed, n)) / 10
    assert entropic_self(torch.from_numpy(own.copy()), epsilon) == pytest.approx(entropic(torch.from_numpy(own), epsilon), abs=1e-5)


def test_potentials_may_grow_far_beyond_what_a_scaling_holds() -> None:
    x = np.linspace(0, 1, 20)[:, None]
    value = entropic(torch.from_numpy(ot.dist(x, x + 3) / 2), 5e-4)
    assert 4.5 <= value <= 4.5 + 5e-4 * np.log(20)


@pytest.mark.parametrize("epsilon", [0.05, 0.01, 0.001])
def test_sinkhorn_comes_close_to_exact(epsilon: float) -> None:
    """Also at a regularisation whose plain kernel would be 0 throughout."""
    (x, labels), y = labelled(0, 120), labelled(0, 120)[0] + 0.5 * table(3, 120) + 0.5
    exact, found = otdd(x, labels, y, labels), otdd_result(x, labels, y, labels, exact_samples=119, epsilon=epsilon)
    assert found.value == pytest.approx(exact, rel=min(0.1, 5 * epsilon)) and found.solver == "sinkhorn"
    sides = [labelled_points(unit_rows(t) - unit_rows(x).mean(0), labels, 0.1) for t in (x, y)]
    assert found.epsilon == pytest.approx(epsilon * np.median(ground_cost(*sides).numpy()), rel=1e-6)
    assert otdd(x, labels, x, labels, exact_samples=0, epsilon=epsilon) == pytest.approx(0, abs=1e-5)


def test_the_smallest_and_the_flattest_sets_are_measured() -> None:
    x, y = np.array([[1.0], [-2.0]]), np.array([[-1.0], [-1.0]])
    one_class, two = np.array([5, 5]), np.array([0, 0, 1, 1])
    assert otdd(x, one_class, y, one_class) == pytest.approx(2) and otdd(x, one_class, x[::-1].copy(), one_class) == pytest.approx(0)
    assert otdd(table(0, 2), one_class, table(1, 4), two) > 0
    assert otdd_result(table(0, 9, 2) @ table(1, 2, 6), np.zeros(9, int), table(2, 9, 6), np.zeros(9, int), n_components=4).n_components == 2  # no more vary
    flat = np.ones((4, 3))
    for other in (flat, -flat):
        assert otdd(flat, two, other, two, exact_samples=0) == pytest.approx(otdd(flat, two, other, two), rel=1e-6, abs=1e-12)


@given(seed=SEEDS, sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), max_samples=st.integers(2, 60))
def test_drawn_rows_keep_the_shares_of_classes(seed: int, sizes: list[int], max_samples: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = sampled_rows(labels, max_samples, seed)
    counts, kept = np.bincount(labels[rows], minlength=len(sizes)), sum(size for size in sizes if size > 1)
    assert len(set(rows)) == len(rows) <= max_samples and (counts != 1).all() and (np.diff(rows) > 0).all()
    if kept <= max_samples or 2 * len(sizes) <= max_samples:
        assert len(rows) == min(kept, max_samples) and (counts[np.array(sizes) > 1] >= 2).all()
    if 4 * len(sizes) <= max_samples < kept:
        assert all(abs(count - size / kept * max_samples) <= 2 + len(sizes) for count, size in zip(counts, sizes, strict=True) if size > 2)


def test_the_same_images_are_drawn_alike_and_classes_of_one_are_left_out() -> None:
    x, labels = labelled(0, 200)
    labels[[5, 70]] = 98, 99
    result = otdd_result(x, labels, x, labels, max_samples=20)
    assert (result.n_0, result.n_1, result.n_classes, result.skipped) == (20, 20, 3, 4) and result.value == pytest.approx(0, abs=1e-9)
    assert otdd(x, labels, x + 1, labels, max_samples=20) != otdd(x, labels, x + 1, labels, max_samples=20, seed=1)


def test_what_otdd_cannot_use_is_refused() -> None:
    x, labels = labelled(0)
    for message, arguments, options in (
        ("features_1 have 30 rows and 29 labels", (x, labels, x, labels[:-1]), {}),
        ("features_0 have no class with two samples among 30", (x, np.arange(30), x, labels), {}),
        ("features of 5 and 4 numbers an image", (x, labels, x[:, :4], labels), {}),
        ("max_samples = 6000 is not allowed; give a whole number from 2 to 5000", (x, labels, x, labels), {"max_samples": 6000}),
        ("otdd has no option 'pca'; choose from n_components, shrinkage", (x, labels, x, labels), {"pca": 3}),
    ):
        with pytest.raises(UserError, match=message):
            inspect.unwrap(otdd_result)(*arguments, **options)


def test_neighbors_lost_of_a_small_set_looks_at_all_the_others() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3))
    assert discover("drift")["neighbors_lost"].function(x, x[::-1].copy()) == 0.0, "everybody is a neighbour of everybody"
