"""Where a run computes."""

import os
import platform
import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from .types import UserError, quoted


@dataclass(frozen=True)
class Device:
    """One place to compute: its name for ``--device``, what it is, and its free memory in GiB."""

    name: str
    title: str
    free_gib: float


def list_devices() -> list[Device]:
    """Returns the GPUs, if any, then the CPU."""
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, _total = torch.cuda.mem_get_info(index)
        found.append(Device(f"cuda:{index}", torch.cuda.get_device_name(index), free / 2**30))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processor = platform.processor() or platform.machine()
    return [*found, Device("cpu", f"CPU, {cores} cores ({processor})", psutil.virtual_memory().available / 2**30)]


def resolve_device(name: str) -> torch.device:
    """Turns ``auto``, ``cpu``, ``cuda`` or ``cuda:i`` into a device.

    Raises:
        UserError: If it is none of these, or this machine has no such GPU.
    """
    check_device(name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= gpus:
        raise UserError(f"device {name!r} is not here: this machine has {gpus} usable GPUs; give auto or cpu.")
    return torch.device(name)


def check_device(name: str) -> None:
    """Raises `UserError` unless the word names a device, present or not."""
    kind, _, index = name.partition(":")
    if not (name in ("auto", "cpu", "cuda") or (kind == "cuda" and index.isdecimal() and len(index) < 4)):
        raise UserError(f"device {quoted(name)} is unknown; give auto, cpu, cuda or cuda:0 and so on.")


def peak_memory(device: torch.device) -> float:
    """Returns the most memory that this process has held, in MB: of the GPU if it uses one, else resident.

    Linux counts the peak of the process that started this one into ``ru_maxrss``; its own is in ``/proc``.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    own = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if own:
        return int(own.group(1)) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
