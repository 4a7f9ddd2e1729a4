"""What pages read again and again, remembered: finished runs never change."""

import shutil
from pathlib import Path

import streamlit as st

from ..devices import Device, list_devices
from ..feature_cache import CacheUse, cache_use, clear_oldest
from ..neighborhoods import Neighborhood, get_neighborhood
from ..preview import TaskCard, task_card


# A resource and not data: data would be copied, images and all, at every look. Nobody changes what is read here.
@st.cache_resource(max_entries=16, show_spinner="Reading features and finding neighbours ...")
def read_neighborhood(run_id: str, dataset: str, domain: str, n_neighbors: int, moment: str, maps_stamp: float, _root: Path) -> Neighborhood:
    """Returns a run's neighbourhood; finished runs never change, so only a new pair of maps makes it stale."""
    return get_neighborhood(run_id, dataset, domain, n_neighbors, _root, moment)


@st.cache_data(ttl=20, show_spinner=False)
def read_devices() -> list[Device]:
    """Returns where a run can compute, with the free memory of a moment ago."""
    return list_devices()


def free_gb(root: Path) -> float:
    """Returns the free space of the disk that holds the cache folder, or will hold it, in GB."""
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free / 1e9


def read_cache_use(root: Path) -> CacheUse:
    """Returns how full the cache of features is."""
    return cache_use(root)


def clear_features(root: Path) -> None:
    """Removes all features and graphs from the disk, and what pages remember of them."""
    clear_oldest(root, 0)
    read_neighborhood.clear()


@st.cache_data(max_entries=32, show_spinner="Drawing sample images ...")
def read_task(name: str, _root: Path) -> TaskCard:
    """Returns the card of a task; its pictures are drawn once and then read from disk."""
    return task_card(name, _root)
