"""Graphs against scikit-learn, and the overlap by hand."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from robustft.graph import knn_graph, neighbor_overlap
from robustft.types import KnnGraph, UserError

# The shape hook answers before the function does when it is given what its annotation forbids; users run without the hook.
unhooked: Any = inspect.unwrap(knn_graph)


def table(seed: int, n: int = 30, d: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def graph_of(rows: list[list[int]]) -> KnnGraph:
    return KnnGraph(np.array(rows), np.ones(np.shape(rows), np.float32))


@given(seed=st.integers(0, 10_000), n=st.integers(3, 40), data=st.data())
def test_same_neighbors_as_scikit_learn(seed: int, n: int, data: st.DataObject) -> None:
    x, k = table(seed, n), data.draw(st.integers(1, n - 1))
    graph = knn_graph(x, k)
    distances, indices = NearestNeighbors(n_neighbors=k, metric="cosine").fit(x).kneighbors()  # without X, self is left out
    np.testing.assert_allclose(graph.similarities, 1 - distances, atol=1e-5)
    for row in range(n):
        # Sets are equal but for ties: what only one of the two has must lie at the distance of the k-th neighbour.
        for extra in set(graph.indices[row]) ^ set(indices[row]):
            cosine = x[row] @ x[extra] / (np.linalg.norm(x[row]) * np.linalg.norm(x[extra]))
            assert cosine == pytest.approx(1 - distances[row, -1], abs=1e-5)


@given(seed=st.integers(0, 10_000), copies=st.integers(1, 12), k=st.integers(1, 8))
def test_self_is_left_out_also_among_duplicates(seed: int, copies: int, k: int) -> None:
    x = np.concatenate([np.repeat(table(seed, 1), copies, 0), table(seed + 1, 10)])
    graph = knn_graph(x, k)
    own = np.arange(len(x))[:, None]
    assert graph.indices.shape == (len(x), k) and not (graph.indices == own).any()
    assert all(len(set(row)) == k for row in graph.indices.tolist())
    assert (np.diff(graph.similarities, axis=1) <= 1e-6).all() and (np.abs(graph.similarities) <= 1).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_scale_of_a_row_changes_nothing(scale: float) -> None:
    x = table(0)
    np.testing.assert_array_equal(knn_graph(x * scale, 4).indices, knn_graph(x, 4).indices)


def test_half_precision_keeps_its_own_neighbors() -> None:
    x = table(0).astype(np.float16)
    np.testing.assert_array_equal(knn_graph(x, 4).indices, knn_graph(x.astype(np.float64), 4).indices)


def test_tensor_gives_the_graph_of_its_array() -> None:
    x = table(0)
    np.testing.assert_array_equal(unhooked(torch.from_numpy(x), 4).indices, knn_graph(x, 4).indices)


@pytest.mark.parametrize("k", [-1, 0, 5, 6])
def test_too_many_neighbors_are_refused(k: int) -> None:
    with pytest.raises(UserError, match=rf"n_neighbors = {k} .* 5 samples; give 1 to 4"):
        knn_graph(table(0, 5), k)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(bad: float) -> None:
    x = table(0)
    x[[3, 17], 2] = bad
    with pytest.raises(UserError, match=r"rows \[3, 17\] \(2 in all\) are not finite"):
        knn_graph(x, 2)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4)])
def test_what_is_no_table_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="not a table"):
        unhooked(np.zeros(shape), 1)


def test_overlap_by_hand() -> None:
    # Row 0 keeps both (order is irrelevant), row 1 keeps one of two, row 2 none.
    before, after = graph_of([[1, 2], [0, 2], [0, 1]]), graph_of([[2, 1], [2, 3], [3, 4]])
    assert neighbor_overlap(before, after).tolist() == [1.0, 0.5, 0.0]


@given(seed=st.integers(0, 10_000), k=st.integers(1, 9))
def test_overlap_is_symmetric_and_a_share(seed: int, k: int) -> None:
    a, b = knn_graph(table(seed, 10), k), knn_graph(table(seed + 1, 10), k)
    there, back = neighbor_overlap(a, b), neighbor_overlap(b, a)
    np.testing.assert_allclose(there, back)
    assert (0 <= there).all() and (there <= 1).all()
    assert (neighbor_overlap(a, a) == 1).all()


def test_graphs_of_other_samples_are_refused() -> None:
    with pytest.raises(UserError, match=r"\(1, 2\) and \(1, 1\)"):
        neighbor_overlap(graph_of([[1, 2]]), graph_of([[1]]))
