"""Finished runs in one small file, for a demo that opens in seconds: written by `record`, opened by `unpack`.

What pages read of a run is kept whole: scores, histories, curves, answers, maps. Of the content cache the graphs stay (not
the features that they were made of) and the test images, as lossy pictures under the fingerprint of the true ones. Weights
are left out.
"""

import hashlib
import io
import json
import lzma
import math
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from . import __version__, store
from .feature_cache import read_graph, write_graph
from .files import disk_error, read_json, write_json
from .moments import get_moments
from .neighborhoods import get_maps, get_overlap, measured_tasks
from .samples import ALL_DOMAINS, get_samples
from .sources import DRAWN_WITH, VIEWS, features_key, get_dataset, keep_dataset
from .types import Dataset, KnnGraph, RunRecord, UserError

DEMO = Path(__file__).parent / "recordings" / "demo.zip"
MANIFEST = "manifest.json"
FORMAT = 1
MOST_BYTES = 20_000_000
MOST_UNPACKED = 500_000_000
LEFT_OUT = frozenset({"theta_1.safetensors", "checkpoint.safetensors", ".lock", "log.txt"})
MEASURED_WITH = ("torch", "open_clip_torch", "numpy", "umap-learn")
QUALITY = 50
_COSINE_STEPS = 10_000
_COLUMNS = 24


# --- writing ----------------------------------------------------------------------------------------------------------


def record(run_ids: list[str], out: Path, root: Path, study: str = "") -> Path:
    """Writes finished runs, and what pages read of the cache about them, into one file.

    Args:
        run_ids: Finished runs.
        out: The file; an existing one is replaced.
        root: Cache folder that they lie in, with the UMAPs that shall be shown; where one was not drawn, PCA is kept.
        study: What the runs were made for; stands in the manifest.

    Raises:
        UserError: If a run is not finished, or the file would be larger than 20 MB.
    """
    records = [store.read_run(run_id, root=root) for run_id in run_ids]
    unfinished = [record.run_id for record in records if not record.is_finished]
    if unfinished or not records:
        raise UserError(f"{unfinished[0] if unfinished else 'no run'} is not finished; resume it first, or leave it out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr(MANIFEST, json.dumps(_about(records, study), indent=1))
            _write(records, archive, root)
        if part.stat().st_size > MOST_BYTES:
            raise UserError(f"the recording takes {part.stat().st_size:,} bytes; {MOST_BYTES:,} are allowed. Record fewer runs.")
        os.replace(part, out)
    except OSError as error:
        raise disk_error(error, f"the file {out.name!r}") from None
    finally:
        part.unlink(missing_ok=True)
    return out


def _about(records: Sequence[RunRecord], study: str) -> dict[str, Any]:
    """Returns the manifest: what was recorded, when, and with which packages it was measured and drawn."""
    seeds = sorted({own.config.seed for own in records})
    packages = {package: metadata.version(package) for package in sorted({*MEASURED_WITH, *DRAWN_WITH})}
    told = {"format": FORMAT, "version": __version__, "recorded": f"{datetime.now(timezone.utc):%Y-%m-%d}", "study": study, "seeds": seeds}
    return {**told, "runs": [own.run_id for own in records], "packages": packages}


def _write(records: list[RunRecord], archive: zipfile.ZipFile, root: Path) -> None:
    graphs: dict[str, KnnGraph] = {}
    places: dict[tuple[str, str], None] = {}
    for own in records:
        for task, domain, moment in _looks(own, root):
            get_maps(own.run_id, task, domain, root, moment)  # a PCA, where no UMAP was drawn, is stored beside the others
            get_overlap(own.run_id, task, domain, 1, root, moment)  # likewise the graph of all domains
            graphs |= _graphs(own, task, domain, moment, root)
            places |= {} if domain == ALL_DOMAINS else {(task, domain): None}
        for path in sorted(store.run_folder(own.run_id, root).rglob("*")):
            if path.is_file() and path.name not in LEFT_OUT and not path.name.endswith(".part"):
                archive.writestr(str(path.relative_to(root)), _told(path))
    for index, (key, graph) in enumerate(graphs.items()):
        archive.writestr(f"graphs/{index}.json", json.dumps({"key": key, "shape": graph.indices.shape}))
        archive.writestr(f"graphs/{index}.bin", _squeezed(graph))
    for task, domain in places:
        data = get_dataset(task, domain, "test", root)
        archive.writestr(f"samples/{task}/{domain}.json", json.dumps(_note(data)))
        archive.writestr(f"samples/{task}/{domain}.webp", _sheet(data), zipfile.ZIP_STORED)


def _told(path: Path) -> bytes:
    """Returns a file's content; of a status the stage only: who computed it, and where, is nobody's business."""
    if path.name != "status.json":
        return path.read_bytes()
    status = read_json(path) or {}
    return json.dumps({key: status[key] for key in ("stage", "step", "steps", "started", "updated") if key in status}).encode()


def _looks(record: RunRecord, root: Path) -> Iterator[tuple[str, str, str]]:
    """Yields task, domain and moment of all that the Neighborhoods page can show of a run."""
    for task, domains in measured_tasks(record.config).items():
        yield from ((task, domain, "") for domain in domains)
    task = record.config.dataset
    domains = measured_tasks(record.config)[task]
    yield from ((task, domain, row["moment"]) for row in get_moments(record.run_id, root) for domain in domains)
    if len(domains) > 1:
        yield task, ALL_DOMAINS, ""


def _graphs(record: RunRecord, task: str, domain: str, moment: str, root: Path) -> dict[str, KnnGraph]:
    """Returns the stored graphs behind one look, by key: before, after, and the two views that tell the noise."""
    data, keys = get_samples(task, domain, root), read_json(store.run_folder(record.run_id, root) / "encoders.json")
    after = next((row["weights"] for row in get_moments(record.run_id, root) if row["moment"] == moment), keys["after"])
    names = [features_key(keys["before"], data), features_key(after, data), *(features_key(keys["before"], data, view) for view in VIEWS)]
    found = {name: read_graph(name, root) for name in names}
    return {name: graph for name, graph in found.items() if graph is not None}


def _squeezed(graph: KnnGraph) -> bytes:
    """Returns a graph as 2-byte integers: neighbours, and by how many ten-thousandths each cosine is below the one before it."""
    falls = -np.diff(np.rint(graph.similarities * _COSINE_STEPS).astype(np.int32), axis=1, prepend=_COSINE_STEPS)
    columns = [graph.indices.astype("<u2"), falls.astype("<u2")]
    # All low bytes, then all high ones: the latter are nearly all zero.
    return b"".join(part.view(np.uint8).reshape(*part.shape, 2)[..., byte].tobytes() for part in columns for byte in (0, 1))


def _note(data: Dataset) -> dict[str, object]:
    labels = np.asarray(data.labels).tolist()
    return {"labels": labels, "class_names": data.class_names, "templates": data.templates, "fingerprint": data.fingerprint, "side": data.images.shape[-1]}


def _sheet(data: Dataset) -> bytes:
    """Returns all images of a set on one sheet."""
    images, side = np.asarray(data.images), data.images.shape[-1]
    sheet = np.zeros((math.ceil(len(images) / _COLUMNS) * side, _COLUMNS * side, 3), np.uint8)
    for row, image in enumerate(images):
        y, x = (side * part for part in divmod(row, _COLUMNS))
        sheet[y : y + side, x : x + side] = image.transpose(1, 2, 0)
    written = io.BytesIO()
    Image.fromarray(sheet).save(written, "WEBP", quality=QUALITY, method=6)
    return written.getvalue()


# --- reading ----------------------------------------------------------------------------------------------------------


def unpack(archive: Path, root: Path) -> Path:
    """Opens a recording as a cache folder of its own, whole or not at all; one that is there already is left as it is.

    A folder that was opened from another recording, or by code that draws or reads images otherwise, is opened anew.

    Args:
        archive: From `record`.
        root: Folder to make.

    Raises:
        UserError: If the file is no recording that this version reads, the folder holds something else, or it cannot be
            written.
    """
    stamp = _stamp(archive)
    if _is_open(root, stamp):
        return root
    if root.is_symlink() or (root.exists() and not _is_ours(root)):
        raise UserError(f"the folder {root.name!r} holds something that is no opened recording; move it away, or choose another folder.")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.", ignore_cleanup_errors=True) as folder:
            whole = Path(folder) / "whole"
            _open(archive, whole, stamp)
            if not _is_open(root, stamp):  # another process may have been quicker
                if root.exists():
                    os.replace(root, Path(folder) / "old")
                os.replace(whole, root)
    except OSError as error:
        raise disk_error(error, f"the folder {root.name!r}") from None
    return root


def _stamp(archive: Path) -> str:
    """Names what an opened recording depends on: the file, the code that reads it, and what images are drawn with, which names theirs."""
    try:
        digest = hashlib.sha256(archive.read_bytes())
    except OSError:
        raise UserError(f"the recording {archive.name!r} cannot be read; fetch it anew, or write one with `python -m robustft record`.") from None
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    for package in DRAWN_WITH:
        digest.update(metadata.version(package).encode())
    return digest.hexdigest()


def _is_ours(root: Path) -> bool:
    return root.is_dir() and (not any(root.iterdir()) or isinstance(read_json(root / MANIFEST), dict))


def _is_open(root: Path, stamp: str) -> bool:
    about = read_json(root / MANIFEST)
    return isinstance(about, dict) and about.get("opened_as") == stamp


def _open(archive: Path, root: Path, stamp: str) -> None:
    """Reads a recording into a new folder; whatever is wrong with the file becomes one sentence."""
    try:
        with zipfile.ZipFile(archive) as opened:
            about = _restore(opened, root)
    except UserError:
        raise
    except (zipfile.BadZipFile, lzma.LZMAError, zlib.error, UnidentifiedImageError, Image.DecompressionBombError, ArithmeticError, MemoryError,
            LookupError, ValueError, TypeError, EOFError, RuntimeError) as error:  # fmt: skip
        raise UserError(f"{archive.name!r} is damaged or no recording; fetch it anew, or write one with `python -m robustft record`.") from error
    write_json(root / MANIFEST, {**about, "opened_as": stamp})


def _restore(archive: zipfile.ZipFile, root: Path) -> dict[str, Any]:
    """Writes what a recording holds where today's code looks for it, and returns its manifest."""
    members = archive.infolist()
    _check_members(members, root)
    about = json.loads(archive.read(MANIFEST))
    if about["format"] != FORMAT:
        raise UserError(f"this recording has format {about['format']}, this version reads {FORMAT}; record the runs anew.")
    for member in members:
        if member.filename.startswith("runs/") and not member.is_dir():
            path = root / member.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(member))
        elif member.filename.startswith("graphs/") and member.filename.endswith(".json"):
            note = json.loads(archive.read(member))
            write_graph(note["key"], _graph(archive.read(member.filename.replace(".json", ".bin")), note["shape"]), root)
        elif member.filename.startswith("samples/") and member.filename.endswith(".json"):
            keep_dataset(_samples(member.filename, archive), root)
    return about


def _check_members(members: Sequence[zipfile.ZipInfo], root: Path) -> None:
    """Refuses what no recording of ours holds, before anything is read."""
    if sum(member.file_size for member in members) > MOST_UNPACKED:
        raise UserError(f"this recording unpacks to more than {MOST_UNPACKED:,} bytes; that is none of ours.")
    for member in members:
        name = member.filename
        if "\\" in name or ".." in Path(name).parts or not (root / name).resolve().is_relative_to(root.resolve()):
            raise UserError("this recording holds a file that would land outside its folder; that is none of ours.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UserError("this recording holds a link; that is none of ours.")


def _graph(raw: bytes, shape: Sequence[int]) -> KnnGraph:
    bytes_of = np.frombuffer(raw, np.uint8).reshape(2, 2, *shape).astype(np.int32)
    indices, falls = bytes_of[:, 0] + 256 * bytes_of[:, 1]
    return KnnGraph(indices, (1 - np.cumsum(falls, 1) / _COSINE_STEPS).astype(np.float32))


def _samples(name: str, archive: zipfile.ZipFile) -> Dataset:
    note, side = json.loads(archive.read(name)), int(json.loads(archive.read(name))["side"])
    with Image.open(io.BytesIO(archive.read(name.replace(".json", ".webp")))) as opened:
        sheet = np.asarray(opened.convert("RGB"))
    tiles = sheet.reshape(sheet.shape[0] // side, side, _COLUMNS, side, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, side, side)
    labels = torch.tensor(note["labels"], dtype=torch.int64)
    _, task, file = name.split("/")
    names = (tuple(note["class_names"]), tuple(note["templates"]), note["fingerprint"])
    return Dataset(task, file.removesuffix(".json"), "test", torch.from_numpy(np.ascontiguousarray(tiles[: len(labels)])), labels, *names)
