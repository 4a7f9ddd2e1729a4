"""What is here: versions, devices, disk, cache."""

import platform
import shutil
from importlib import metadata
from pathlib import Path

from . import __version__
from .devices import list_devices

PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "streamlit", "plotly", "umap-learn", "pot", "faiss-gpu", "faiss-cpu")


def versions() -> dict[str, str]:
    """Returns the versions of Python, the system and what we stand on; no name of the machine or its user."""
    found = {"robustft": __version__, "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def examine(root: Path) -> dict[str, str]:
    """Returns name and value of what decides whether things work.

    Args:
        root: Cache folder.
    """
    import faiss

    found = versions()
    for device in list_devices():
        found[device.name] = f"{device.title}, {device.free_gib:.1f} GiB free"
    found["faiss GPUs"] = str(faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0)
    existing = next(path for path in (root, *root.parents) if path.exists())
    found["disk"] = f"{shutil.disk_usage(existing).free / 2**30:.1f} GiB free"
    for kind in ("runs", "features", "datasets", "trash"):
        files = [path for path in (root / kind).rglob("*") if path.is_file()] if (root / kind).is_dir() else []
        found[kind] = f"{len(files)} files, {sum(path.stat().st_size for path in files) / 2**20:.0f} MB"
    return found
