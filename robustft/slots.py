"""How many jobs may run side by side, asked without ever holding torch or a GPU."""

import os
import subprocess
import sys


def gpu_slots() -> list[dict[str, str]]:
    """Returns one slot a GPU, as environment variables; asked of a short-lived process, so that the supervisor stays light."""
    asked = subprocess.run([sys.executable, "-c", "import torch; print(torch.cuda.device_count())"], capture_output=True, text=True, check=False)
    count = int(asked.stdout.strip() or 0) if asked.returncode == 0 else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names[:count]]
