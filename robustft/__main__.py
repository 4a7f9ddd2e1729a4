"""The command line: everything that the dashboard does, from the same code."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import commands, demo_commands, run_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, carries it out and returns the exit code: 2 for bad input, with one sentence that says what."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.command(options) or 0)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read us has gone (`... | head`); keep the interpreter from flushing into the void at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {error.strerror or error} ({error.filename or 'no file'}); check the folder, or choose another with --runs-dir.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser; each command's function is its default ``command``."""
    parser = argparse.ArgumentParser(prog="robustft", description="Fine-tune vision foundation models, and see what it did to their features.")
    words = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        made = words.add_parser(name, help=text, description=text)
        made.add_argument("--runs-dir", type=Path, default=None, help="folder of runs and cached features (default: $ROBUSTFT_CACHE or cache/)")
        made.set_defaults(command=command)
        return made

    made = add("list", commands.list_entries, "list what can be chosen")
    made.add_argument("what", nargs="?", default="methods", choices=("models", "datasets", "methods", "presets", "metrics", "runs"))
    made.add_argument("--json", action="store_true", help="as JSON, with parameters, ranges, defaults and sources")
    made = add("train", commands.train, "carry out one run here and now; prints its name on the last line")
    made.add_argument("--config", help="a JSON file as written by Launch or a run (- for standard input)")
    for name in ("model", "dataset", "method"):
        made.add_argument(f"--{name}", default="glyphclip" if name == "model" else None)
    made.add_argument("--preset", default=None, help="settings of a paper or a purpose, with its method; `list presets` names them")
    made.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings of the method; `list methods --json` names them")
    made.add_argument("--seed", default="0")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    made.add_argument("--held-out", default=None, help="tasks to measure forgetting on, separated by commas (default: all others)")
    made.add_argument("--no-curve", action="store_true", help="do not measure the models between start and end")
    made = add("study", commands.study, "carry out a study in the background and print its table; resumable")
    made.add_argument("name", help="demo or methods")
    made.add_argument("--here", action="store_true", help="in this process, run after run; start it again elsewhere to share the work")
    made.add_argument("--marker", type=Path, default=None, help=argparse.SUPPRESS)
    made = add("evaluate", run_commands.evaluate, "print a run's scores on every task, before and after")
    made.add_argument("run_id")
    made = add("otdd", run_commands.otdd, "print how far a run moved the features of every task: OTDD and the other measures")
    made.add_argument("run_id")
    made = add("neighbors", run_commands.neighbors, "print the neighbours that a run kept on every task, and draw the maps of one")
    made.add_argument("run_id")
    made.add_argument("--k", type=int, default=10, help="neighbours a sample (default 10, at most 50)")
    made.add_argument("--dataset", default=None, help="task of the maps (default: the downstream one)")
    made.add_argument("--domain", default=None, help="domain of the maps (default: the task's first)")
    made.add_argument("--no-maps", action="store_true", help="do not draw UMAPs, which take half a minute the first time")
    made = add("interpolate", run_commands.interpolate_run, "print the curve between start and fine-tuned model, or write the weights at one alpha")
    made.add_argument("run_id")
    made.add_argument("--alpha", default=None, help="0 is the foundation model, 1 the fine-tuned one")
    made.add_argument("--out", default=None, type=Path, help="folder to write the weights at alpha to")
    made = add("report", run_commands.report, "write one HTML file that compares runs and needs no network")
    made.add_argument("run_ids", nargs="+", metavar="run_id", help="finished runs on one task")
    made.add_argument("--out", type=Path, required=True, help="file to write")
    made.add_argument("--panels", default=None, help="what it holds, separated by commas (default: everything)")
    made = add("estimate", commands.estimate_run, "measure a few steps of a config and print the cost as JSON")
    made.add_argument("--config", required=True, help="a JSON file (- for standard input)")
    made = add("pretrain", commands.pretrain_model, "train GlyphCLIP from random weights (about 40 minutes on one core)")
    made.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    made.add_argument("--steps", type=int, default=None)
    made = add("record", demo_commands.record_study, "write the finished runs of a study into one small file, without weights")
    made.add_argument("name", help="demo or methods")
    made.add_argument("--out", type=Path, required=True, help="the file to write")
    made = add("demo", demo_commands.show_demo, "show recorded runs: a dashboard that can only be looked at")
    made.add_argument("--port", type=int, default=8501)
    made = add("bench", commands.bench, "measure speed, as ratios within one run")
    made.add_argument("--pages", action="store_true", help="how long a person waits for pages, in headless Chromium (needs it, and playwright)")
    made.add_argument("--only", choices=("steps", "measures"), default=None, help="training steps, or what is measured after training (default: both)")
    made.add_argument("--json", action="store_true")
    add("doctor", commands.doctor, "say what is here: versions, devices, disk, cache")
    add("draw-maps", commands.draw_maps, "draw the UMAPs that are asked for (started by itself when needed)")
    add("supervise", commands.supervise, "work off the queue of a runs folder (started by itself when needed)")
    return parser


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
