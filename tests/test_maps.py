"""Pictures and their errors: scikit-learn and brute force as oracles, laws of alignment, real UMAPs of a few points."""

import inspect
import json
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.manifold
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import procrustes
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from robustft import maps, trust
from robustft.files import read_arrays, write_arrays
from robustft.graph import unit_rows
from robustft.maps import MapPair, align, arrays_of, pair_of, pca_map, pca_pair, umap_map, umap_pair
from robustft.trust import errors_of, neighbors_shown, trustworthiness
from robustft.types import UserError


def table(seed: int, n: int = 30, d: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def clusters(seed: int, n: int = 200, d: int = 16) -> np.ndarray:
    """Points around five directions, in order."""
    rng = np.random.default_rng(seed)
    return (np.repeat(rng.normal(size=(5, d)), n // 5, 0) + 0.3 * rng.normal(size=(n, d))).astype(np.float32)


def true_neighbors(features: np.ndarray, k: int) -> np.ndarray:
    """The double loop: the k others of greatest cosine."""
    cosines = unit_rows(features) @ unit_rows(features).T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, 1)[:, :k]


def distances(places: np.ndarray) -> np.ndarray:
    return cdist(places.astype(np.float64), places.astype(np.float64))


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """Any warning that reaches a user of maps is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


# --- how far to trust a picture ---------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), n=st.integers(5, 60), data=st.data())
def test_trustworthiness_is_that_of_scikit_learn(seed: int, n: int, data: st.DataObject) -> None:
    features, places = table(seed, n), table(seed + 1, n, 2)
    k = data.draw(st.integers(1, (n - 1) // 2))
    expected = sklearn.manifold.trustworthiness(features, places, n_neighbors=k, metric="cosine")
    assert trustworthiness(features, places, k) == pytest.approx(expected, abs=1e-9)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), data=st.data())
def test_neighbors_shown_are_those_that_a_double_loop_finds(seed: int, n: int, data: st.DataObject) -> None:
    features, places = table(seed, n), table(seed + 1, n, 2)
    k = data.draw(st.integers(1, n - 1))
    far = distances(places)
    np.fill_diagonal(far, np.inf)
    seen = np.argsort(far, 1)[:, :k]
    expected = np.mean([len(set(a) & set(b)) / k for a, b in zip(true_neighbors(features, k).tolist(), seen.tolist(), strict=True)])
    assert neighbors_shown(features, places, k) == pytest.approx(expected)
    assert errors_of(features, places, k) == (neighbors_shown(features, places, k), trustworthiness(features, places, k))


def test_trustworthiness_by_hand() -> None:
    # Directions at 0, 10, 30, 70 and 150 degrees, drawn in this order but for the last, which stands beside the first. With k = 1
    # the five see 4, 2, 3, 2 and 0, whose true ranks are 4, 2, 3, 1 and 4: 9 beyond 1, each at 2 / (5 * (10 - 3 - 1)).
    angles = np.radians([0, 10, 30, 70, 150])
    line = np.array([[0.0, 0], [1, 0], [1.9, 0], [2.7, 0], [-0.5, 0]])
    assert trustworthiness(np.stack([np.cos(angles), np.sin(angles)], 1), line, 1) == pytest.approx(1 - 9 * 2 / 30)


def test_a_faithful_picture_has_no_error() -> None:
    # Directions on a small arc, drawn as points of a line in the same order and at the same distances.
    angles = np.sort(np.random.default_rng(0).uniform(0, 1, 50))
    features, places = np.stack([np.cos(angles), np.sin(angles)], 1), np.stack([angles, 0 * angles], 1)
    assert errors_of(features, places) == (1.0, 1.0)


def test_a_draw_of_a_large_set_is_near_the_whole_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    features = clusters(0, 1000)
    places = pca_map(features)
    whole = errors_of(features, places)
    monkeypatch.setattr(trust, "ALL_JUDGED", 999)
    monkeypatch.setattr(trust, "SOME_JUDGED", 400)
    drawn = errors_of(features, places)
    assert drawn != whole and drawn == errors_of(features, places)
    assert drawn == pytest.approx(whole, abs=0.03)


def test_equally_near_neighbors_are_no_error() -> None:
    assert errors_of(np.ones((30, 4), np.float32), table(0, 30, 2)) == (1.0, 1.0)
    twins = np.repeat(np.eye(3, dtype=np.float32), 12, 0)
    assert errors_of(twins, pca_map(twins)) == (1.0, 1.0)
    # One direction at many lengths: the cosines differ by rounding alone.
    lengths = np.random.default_rng(0).uniform(0.1, 10, (301, 1)).astype(np.float32)
    assert errors_of(lengths * table(0, 1, 37), table(1, 301, 2)) == (1.0, 1.0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_sets_have_errors_too(n: int) -> None:
    shown, trusted = errors_of(table(0, n), table(1, n, 2))
    assert shown == 1.0 and 0 <= trusted <= 1


def test_places_of_other_samples_are_refused() -> None:
    with pytest.raises(UserError, match="4 places of 5 samples"):
        inspect.unwrap(trustworthiness)(table(0, 5), table(0, 4, 2))
    with pytest.raises(UserError, match="0 neighbours"):
        neighbors_shown(table(0, 5), table(0, 5, 2), 0)


# --- aligned pictures -------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), n=st.integers(3, 40))
def test_alignment_changes_no_neighbor(seed: int, n: int) -> None:
    places, onto = table(seed, n, 2), 3 * table(seed + 1, n, 2) + 7
    aligned = align(places, onto)
    before, after = distances(places), distances(aligned)
    np.testing.assert_allclose(after / after.max(), before / before.max(), atol=1e-5)
    np.testing.assert_allclose(aligned.mean(0), onto.mean(0), atol=1e-4)
    assert np.linalg.norm(aligned - aligned.mean(0)) == pytest.approx(np.linalg.norm(onto - onto.mean(0)), rel=1e-4)


@given(seed=st.integers(0, 10_000), angle=st.floats(0, 6.28), flip=st.sampled_from([-1, 1]), scale=st.floats(0.01, 100))
def test_a_picture_that_was_only_turned_comes_back(seed: int, angle: float, flip: int, scale: float) -> None:
    onto = table(seed, 20, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1, flip])
    np.testing.assert_allclose(align((scale * onto @ turn + 5).astype(np.float32), onto), onto, atol=1e-3)


def test_alignment_is_as_near_as_a_turn_can_bring_it() -> None:
    # scipy normalises both to unit size and lets the scale free; at equal size the squared distance is 2 - 2 * (sum of singular values).
    places, onto = table(0, 20, 2), table(1, 20, 2)
    free = procrustes(onto, places)[2]
    centred = onto - onto.mean(0)
    off = ((align(places, onto) - onto) ** 2).sum() / (centred**2).sum()
    assert off == pytest.approx(2 - 2 * np.sqrt(1 - free), rel=1e-4)


def test_alignment_of_points_that_are_one() -> None:
    point, places = np.zeros((4, 2), np.float32), table(0, 4, 2)
    np.testing.assert_allclose(align(point, places), np.tile(places.mean(0), (4, 1)), atol=1e-6)
    np.testing.assert_allclose(distances(align(places, point)), distances(places), atol=1e-5)


# --- PCA --------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), n=st.integers(3, 40), d=st.integers(2, 12), chunk=st.integers(1, 50))
def test_pca_is_that_of_scikit_learn_whatever_the_chunks(seed: int, n: int, d: int, chunk: int) -> None:
    features = table(seed, n, d)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maps, "_CHUNK", chunk)
        places = pca_map(features)
    expected = PCA(2).fit(unit_rows(features))
    np.testing.assert_allclose(places.var(0), expected.explained_variance_ * (n - 1) / n, atol=1e-6)
    if expected.explained_variance_[0] > 1.1 * expected.explained_variance_[1] + 1e-4:  # else the axes are free to turn
        np.testing.assert_allclose(np.abs(places[:, 0]), np.abs(expected.transform(unit_rows(features))[:, 0]), atol=1e-4)


@given(seed=st.integers(0, 10_000), n=st.integers(3, 40), d=st.integers(2, 12))
def test_pca_axes_point_to_where_they_are_longest(seed: int, n: int, d: int) -> None:
    unit, places = unit_rows(table(seed, n, d)), pca_map(table(seed, n, d))
    loadings = (unit - unit.mean(0)).T @ places  # each axis, times the variance along it
    for loading in loadings[:, np.abs(loadings).max(0) > 1e-3].T:
        assert loading.max() > 0.999 * -loading.min()


def test_pca_picture_does_not_flip_with_the_order_of_samples() -> None:
    features, order = table(0, 50, 8), np.random.default_rng(1).permutation(50)
    np.testing.assert_allclose(pca_map(features[order]), pca_map(features)[order], atol=1e-5)


@pytest.mark.parametrize(
    ("features", "flat"),
    [
        (np.ones((20, 6), np.float32), [True, True]),
        (table(0, 1), [True, True]),
        (table(0, 2), [False, True]),
        (np.array([[1.0], [-2.0], [3.0]], np.float32), [False, True]),
        (np.zeros((3, 4), np.float32), [True, True]),
        (np.ones((20, 6), np.float32) * np.linspace(0.1, 9, 20, dtype=np.float32)[:, None], [True, True]),
    ],
    ids=["constant", "one sample", "two samples", "one feature", "zero", "one direction"],
)
def test_pca_of_too_little_is_a_defined_picture(features: np.ndarray, flat: list[bool]) -> None:
    pair = pca_pair(features, features)
    assert pair.before.shape == pair.after.shape == (len(features), 2)
    assert np.isfinite(pair.after).all() and (np.ptp(pair.before, 0) == 0).tolist() == flat
    assert all(0 <= value <= 1 for value in (*pair.shown, *pair.trustworthiness))


def test_pca_memory_does_not_grow_with_the_samples() -> None:
    features = np.zeros((30_000, 64), np.float32)  # 8 MB, 15 in double precision
    features[:, :3] = table(0, 30_000, 3)
    tracemalloc.start()
    pca_map(features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_features_that_cannot_be_drawn_are_refused() -> None:
    bad = table(0)
    bad[[3, 17], 2] = np.nan
    with pytest.raises(UserError, match=r"rows \[3, 17\] \(2 in all\) are not finite"):
        pca_pair(table(0), bad)
    with pytest.raises(UserError, match="no samples"):
        pca_map(table(0, 0))
    with pytest.raises(UserError, match="30 samples before and 29 after"):
        inspect.unwrap(pca_pair)(table(0), table(0, 29))


# --- stored pairs -----------------------------------------------------------------------------------------------------


def same(a: MapPair, b: MapPair) -> bool:
    rest = [(pair.kind, pair.shown, pair.trustworthiness, pair.parameters) for pair in (a, b)]
    return np.array_equal(a.before, b.before) and np.array_equal(a.after, b.after) and rest[0] == rest[1]


def test_a_pair_comes_back_from_its_file(tmp_path: Path) -> None:
    pair = pca_pair(table(0), table(1))
    write_arrays(tmp_path / "pair.safetensors", *arrays_of(pair))
    stored = read_arrays(tmp_path / "pair.safetensors")
    assert stored is not None and same(pair_of(*stored), pair)


@pytest.mark.parametrize("missing", ["shown", "trustworthiness", "kind", "parameters", "before"])
def test_a_stored_pair_without_its_errors_is_refused(missing: str) -> None:
    arrays, note = arrays_of(pca_pair(table(0), table(1)))
    arrays.pop(missing, None), note.pop(missing, None)
    with pytest.raises(UserError, match="made anew"):
        pair_of(arrays, note)


# --- UMAP -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved() -> tuple[np.ndarray, np.ndarray]:
    before = clusters(0)
    return before, (before + 0.3 * np.random.default_rng(1).normal(size=before.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def pair(moved: tuple[np.ndarray, np.ndarray]) -> MapPair:
    """The one that compiles."""
    return umap_pair(*moved)


def test_umap_pair_is_drawn_judged_and_kept(pair: MapPair, moved: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    assert pair.kind == "UMAP" and pair.before.shape == pair.after.shape == (200, 2)
    assert errors_of(moved[0], pair.before) == (pair.shown[0], pair.trustworthiness[0])
    assert errors_of(moved[1], pair.after) == pytest.approx((pair.shown[1], pair.trustworthiness[1]), abs=2e-3)  # aligned since
    assert min(pair.trustworthiness) > 0.9 and min(pair.shown) > 0.4
    assert pair.parameters["n_epochs"] == [300, 200] and json.loads(json.dumps(pair.parameters)) == pair.parameters
    write_arrays(tmp_path / "pair.safetensors", *arrays_of(pair))
    stored: Any = read_arrays(tmp_path / "pair.safetensors")
    assert same(pair_of(*stored), pair)


def test_the_same_seed_gives_the_same_bits(pair: MapPair, moved: tuple[np.ndarray, np.ndarray]) -> None:
    assert same(umap_pair(*moved), pair) and same(umap_pair(*moved, pair.before), pair)
    assert not np.array_equal(umap_map(moved[0], seed=1), pair.before)


def test_a_started_map_keeps_the_order_of_its_start(pair: MapPair, moved: tuple[np.ndarray, np.ndarray]) -> None:
    exchanged = np.roll(pair.before, 40, axis=0)  # each cluster stands where the next one stood
    drawn = umap_pair(*moved, exchanged)
    assert drawn.before is exchanged
    assert procrustes(exchanged, drawn.after)[2] < 0.2 < procrustes(pair.before, drawn.after)[2]


def test_what_does_not_move_is_drawn_at_the_same_places(pair: MapPair, moved: tuple[np.ndarray, np.ndarray]) -> None:
    still = umap_pair(moved[0], moved[0].copy(), pair.before)
    np.testing.assert_allclose(still.after, still.before, atol=1e-4)


@pytest.mark.parametrize(
    "features",
    [
        np.ones((40, 6), np.float32),
        np.repeat(table(0, 4, 6), 10, 0),
        np.eye(3, dtype=np.float32)[[0] * 40] * np.array([[1]] * 39 + [[-1]], np.float32),
        np.zeros((17, 3), np.float32),
        table(0, 17, 1),
    ],
    ids=["all equal", "four kinds", "one opposite to all", "zero", "one feature"],
)
def test_umap_of_ties_is_finite(pair: MapPair, features: np.ndarray) -> None:
    first = umap_map(features)
    assert np.isfinite(first).all()
    assert np.isfinite(umap_map(features, np.zeros_like(first))).all()


def test_umaps_that_cannot_be_drawn_are_refused(moved: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(UserError, match="16 samples are too few for a UMAP; give at least 17"):
        umap_map(table(0, 16))
    with pytest.raises(UserError, match="199 places for 200 samples"):
        inspect.unwrap(umap_pair)(*moved, table(0, 199, 2))
    bad = moved[0].copy()
    bad[5] = np.inf
    with pytest.raises(UserError, match=r"rows \[5\]"):
        umap_map(bad)
