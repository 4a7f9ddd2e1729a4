"""Graphs against scikit-learn, and the overlap by hand."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from robustft import graph as graph_module
from robustft.graph import class_purity, edges, knn_graph, nearest, neighbor_overlap, neighbors_shared
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


# --- slices, classes, edges -------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), most=st.integers(2, 12), data=st.data())
def test_smaller_graph_is_a_slice_of_a_larger_one(seed: int, most: int, data: st.DataObject) -> None:
    x, k = table(seed, 20), data.draw(st.integers(1, most))
    small, large = knn_graph(x, k), nearest(knn_graph(x, most), k)
    np.testing.assert_array_equal(small.indices, large.indices)
    np.testing.assert_array_equal(small.similarities, large.similarities)


@pytest.mark.parametrize("k", [0, 4, -1])
def test_slice_that_is_not_there_is_refused(k: int) -> None:
    with pytest.raises(UserError, match=f"n_neighbors = {k} .* graph of 3"):
        nearest(knn_graph(table(0), 3), k)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 9))
def test_overlap_equals_a_double_loop(seed: int, k: int) -> None:
    a, b = knn_graph(table(seed, 12), k), knn_graph(table(seed + 1, 12), k)
    expected = [len(set(a.indices[row]) & set(b.indices[row])) / k for row in range(12)]
    np.testing.assert_allclose(neighbor_overlap(a, b), expected)
    # Kept is what both have; as many are lost on one side as are gained on the other.
    assert ((~neighbors_shared(a, b)).sum(1) == (~neighbors_shared(b, a)).sum(1)).all()


def test_overlap_of_many_samples_is_that_of_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = knn_graph(table(0, 100), 5), knn_graph(table(1, 100), 5)
    whole = neighbor_overlap(a, b)
    monkeypatch.setattr(graph_module, "ROWS_AT_A_TIME", 7)
    np.testing.assert_array_equal(neighbor_overlap(a, b), whole)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), classes=st.integers(1, 4))
def test_purity_equals_a_double_loop(seed: int, k: int, classes: int) -> None:
    graph, labels = knn_graph(table(seed, 15), k), np.random.default_rng(seed).integers(0, classes, 15)
    expected = [np.mean([labels[other] == labels[row] for other in graph.indices[row]]) for row in range(15)]
    np.testing.assert_allclose(class_purity(graph, labels), expected)
    if classes == 1:
        assert (class_purity(graph, labels) == 1).all()


@given(seed=st.integers(0, 10_000), k=st.integers(1, 6))
def test_edges_equal_a_double_loop(seed: int, k: int) -> None:
    graph = knn_graph(table(seed, 15), k)
    named = {(row, int(other)) for row in range(15) for other in graph.indices[row]}
    every = {(min(pair), max(pair)) for pair in named}
    assert {tuple(pair) for pair in edges(graph).tolist()} == every
    assert {tuple(pair) for pair in edges(graph, mutual=True).tolist()} == {(a, b) for a, b in every if (a, b) in named and (b, a) in named}


@pytest.mark.parametrize("features", [np.ones((6, 1)), np.zeros((6, 3)), np.ones((6, 3))], ids=["one dimension", "zeros", "all alike"])
def test_ties_everywhere_still_give_a_graph(features: np.ndarray) -> None:
    graph = knn_graph(features, 3)
    assert not (graph.indices == np.arange(6)[:, None]).any() and ((graph.indices >= 0) & (graph.indices < 6)).all()
    assert all(len(set(row)) == 3 for row in graph.indices.tolist())


def test_features_are_left_alone() -> None:
    x = table(0)
    before = x.copy()
    knn_graph(x, 3)
    np.testing.assert_array_equal(x, before)


def test_gpu_index_is_asked_for_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU runs here: what is checked is that one is used if FAISS says that it has one, and that the answer passes through."""
    asked = []
    monkeypatch.setattr(graph_module.faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(graph_module.faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(graph_module.faiss, "index_cpu_to_gpu", lambda resources, device, index: asked.append((resources, device)) or index, raising=False)
    x = table(0)
    found = knn_graph(x, 4)
    assert asked == [("resources", 0)]
    monkeypatch.undo()
    np.testing.assert_array_equal(found.indices, knn_graph(x, 4).indices)
