"""Speed and memory of what is measured after training, each beside the common way to compute the same."""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .devices import peak_memory
from .drift.otdd import otdd, otdd_result
from .features import extract
from .graph import knn_graph, neighbor_overlap, unit_rows
from .maps import umap_map
from .probe import LinearProbe
from .run import load_backbone
from .sources import get_dataset

Row = dict[str, Any]


def measure_rows(root: Path) -> Iterator[Row]:
    """Yields a row a measure, as `bench.run_bench` returns them; `root` holds the data of the row on extraction."""
    yield otdd_row()
    yield probe_row()
    yield graph_row()
    yield overlap_row()
    yield extraction_row(root)
    yield fresh(_map_row)
    yield reading_row()
    yield {"name": "50,000 x 512 features through every measure", "peak_mb": fresh(_peak_of_measures), "pairs": 1}


def clouds(n: int, classes: int, d: int = 512, seed: int = 0, spread: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Returns features as a CLIP's are: in a cone, classes that overlap, variance that decays along the axes."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(99)
    scale = np.arange(1, d + 1) ** -0.5
    cone, centres = 3 * world.normal(size=d) / np.sqrt(d), world.normal(size=(classes, d)) * scale
    labels = np.arange(n) % classes
    values = cone + 0.15 * (centres[labels] + spread * rng.normal(size=(n, d)) * scale)
    return unit_rows(values).astype(np.float32), labels


def paired(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, their_scale: float = 1.0) -> Row:
    """Times two ways to the same in turn; the ratio says how many times faster ours is. The first pair warms up."""
    times = [(_seconds(ours), their_scale * _seconds(theirs)) for _ in range(pairs + 1)][1:]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    return {"name": name, "ratio": statistics.median(b / a for a, b in times), "seconds": mine, "against": other, "pairs": pairs}


def alone(name: str, action: Callable[[], Any], times: int = 7) -> Row:
    """Times one action; the first time warms up."""
    return {"name": name, "seconds": statistics.median([_seconds(action) for _ in range(times + 1)][1:]), "pairs": times}


def _seconds(action: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def fresh(action: Callable[[], Any]) -> Any:
    """Returns what an action returns in a process of its own, which nothing has warmed or filled."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(action)


# --- rows -------------------------------------------------------------------------------------------------------------


def otdd_row() -> Row:
    """Times OTDD against POT's pairwise Bures distances at full width, of which a few pairs are timed and scaled to all."""
    import ot

    (x, labels), (y, _) = clouds(1000, 50), clouds(1000, 50, seed=1)
    moments = [(x[labels == k].mean(0), np.cov(x[labels == k].T, bias=True) + 1e-6 * np.eye(512)) for k in range(4)]

    def one_pair() -> None:
        ot.gaussian.bures_wasserstein_distance(moments[0][0], moments[1][0], moments[0][1], moments[1][1])

    row = paired("OTDD, 1000 x 1000, 512-d, 50 classes: faster than POT's 2,500 Bures pairs by", lambda: otdd(x, labels, y, labels), one_pair, 5, 2500)
    value, full = otdd_result(x, labels, y, labels).value, _otdd_by_pot(x, y, labels)
    return row | {"note": f"value {value:.5f}, by POT at equal PCA {full:.5f} ({100 * (value / full - 1):+.2f} %)"}


def _otdd_by_pot(x: np.ndarray, y: np.ndarray, labels: np.ndarray, d: int = 64, shrinkage: float = 0.1) -> float:
    """Returns OTDD with every pair of classes by POT, on the same PCA of the first set."""
    import ot

    x, y = unit_rows(x), unit_rows(y)
    axes = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:d].T
    x, y = (x - x.mean(0)) @ axes, (y - x.mean(0)) @ axes
    sides = []
    for values in (x, y):
        spreads = [np.cov(values[labels == k].T, bias=True) for k in range(50)]
        shrunk = [(1 - shrinkage) * s + shrinkage * np.trace(s) / d * np.eye(d) for s in spreads]
        sides.append([(values[labels == k].mean(0), shrunk[k]) for k in range(50)])
    classes = np.array([[ot.gaussian.bures_wasserstein_distance(m, n, s, t) ** 2 for n, t in sides[1]] for m, s in sides[0]])
    cost = 0.5 * ot.dist(x, y) + 0.5 * classes[np.ix_(labels, labels)]
    return float(ot.emd2([], [], cost, numItermax=1_000_000))


def probe_row() -> Row:
    """Times a linear probe against scikit-learn's logistic regression with the same objective."""
    from sklearn.linear_model import LogisticRegression

    (x, y), (x_test, y_test) = clouds(5000, 50, spread=4), clouds(10_000, 50, seed=1, spread=4)  # classes that overlap
    theirs, converged = (LogisticRegression(C=300.0, solver="lbfgs", tol=tol, max_iter=5000) for tol in (1e-4, 1e-6))
    row = paired("linear probe, 5,000 x 512, 50 classes: faster than scikit-learn by", lambda: LinearProbe(300.0).fit(x, y), lambda: theirs.fit(x, y), 3)
    ours, loose, tight = (100 * found.score(x_test, y_test) for found in (LinearProbe(300.0).fit(x, y), theirs, converged.fit(x.astype(np.float64), y)))
    return row | {"note": f"accuracy {ours:.2f} %, scikit-learn {loose:.2f} % at tol 1e-4 and {tight:.2f} % at 1e-6"}


def graph_row() -> Row:
    """Times an exact graph against scikit-learn's brute force by cosine."""
    from sklearn.neighbors import NearestNeighbors

    x, _ = clouds(20_000, 50)
    found: list[Any] = [None, None]

    def ours() -> None:
        found[0] = knn_graph(x, 50)

    def theirs() -> None:
        found[1] = NearestNeighbors(n_neighbors=50, metric="cosine", algorithm="brute").fit(x).kneighbors(return_distance=False)

    row = paired("kNN graph, k = 50, 20,000 x 512: faster than scikit-learn brute force by", ours, theirs, 3)
    same = np.mean([len(set(a) & set(b)) / 50 for a, b in zip(found[0].indices.tolist(), found[1].tolist(), strict=True)])
    return row | {"note": f"{100 * same:.3f} % of neighbours the same, the rest ties"}


def overlap_row() -> Row:
    """Times the overlap of two graphs that are at hand."""
    graphs = [knn_graph(clouds(20_000, 50, d=32, seed=seed)[0], 10) for seed in (0, 1)]
    return alone("overlap of two graphs, 20,000 x 10", lambda: neighbor_overlap(*graphs))


def extraction_row(root: Path) -> Row:
    """Times extraction against the bare passes of the tower on the same batches, prepared before."""
    backbone, data = load_backbone("glyphclip", torch.device("cpu")), get_dataset("food", "color", "train", root)
    batches = [backbone.preprocess(chunk) for chunk in torch.as_tensor(data.images).split(128)]

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                backbone.encoder(batch)

    row = paired("feature extraction: throughput against bare forward passes", lambda: extract(backbone.encoder, backbone.preprocess, data), bare, 7)
    return row | {"note": f"{len(data) / row['seconds']:.0f} images/s"}


def _map_row() -> Row:
    """Times the second map against a UMAP from nothing, both in a process that has drawn such maps before."""
    import umap

    before, _ = clouds(5000, 50)
    after = unit_rows(before + 0.02 * np.random.default_rng(1).normal(size=before.shape)).astype(np.float32)
    first = umap_map(before)

    def cold() -> None:
        umap.UMAP(metric="cosine", random_state=0, n_jobs=1).fit_transform(after)

    return paired("second map of 5,000 points: faster than a cold UMAP by", lambda: umap_map(after, first), cold, 3)


def reading_row() -> Row:
    """Times the reading of a finished run for a page: 5,000 samples, ten tasks."""
    from .bench_run import read_everything, write_large_run

    with tempfile.TemporaryDirectory() as folder:
        run_id = write_large_run(Path(folder), *clouds(5000, 48))
        return alone("reading a finished run for a page, 5,000 samples, 10 tasks", lambda: read_everything(run_id, Path(folder)))


def _peak_of_measures() -> float:
    """Returns the peak memory in MB of a process that takes 50,000 x 512 features through every measure."""
    from .drift.cka import cka
    from .drift.l2 import l2
    from .maps import pca_pair

    x, labels = clouds(50_000, 50)
    y = unit_rows(x + 0.02).astype(np.float32)
    neighbor_overlap(knn_graph(x, 50), knn_graph(y, 50))
    l2(x, y), cka(x, y), otdd(x, labels, y, labels), pca_pair(x, y)
    LinearProbe(300.0).fit(x, labels)
    return peak_memory(torch.device("cpu"))
