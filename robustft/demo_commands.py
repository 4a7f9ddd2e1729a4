"""The commands about recorded runs: write them into one file, and show the demo."""

import argparse
import os
import sys
from pathlib import Path

from .commands import root_of
from .types import UserError


def record_study(options: argparse.Namespace) -> None:
    """Writes the finished runs of a study into one file."""
    from .recorded import record
    from .study import find_study, study_runs

    root, study = root_of(options), find_study(options.name)
    views = study_runs(study, root)
    missing = len(study.configs()) - sum(view.state == "finished" for view in views)
    if missing:
        raise UserError(
            f"{missing} of {len(study.configs())} runs of the study {options.name} are not finished; `python -m robustft study {options.name}` goes on."
        )
    out = record([view.run_id for view in views], options.out, root, options.name)
    print(f"{out} ({out.stat().st_size:,} bytes)")


def show_demo(options: argparse.Namespace) -> None:
    """Opens the recorded runs in a folder of their own and becomes a dashboard that only shows them."""
    from .recorded import DEMO, unpack

    folder = unpack(DEMO, root_of(options) / "demo")
    server = ["--server.address", "127.0.0.1", "--server.port", str(options.port), "--server.headless", "true"]
    environment = {**os.environ, "ROBUSTFT_CACHE": str(folder.absolute()), "ROBUSTFT_READ_ONLY": "1", "ROBUSTFT_MAP_WORKER": "off"}
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "streamlit", "run", "app.py", *server], environment)
