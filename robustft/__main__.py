"""The command line: everything that the dashboard does, from the same code."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .types import RunConfig, UserError


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
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("--runs-dir", type=Path, default=None, help="folder of runs and cached features (default: $ROBUSTFT_CACHE or cache/)")
        made.set_defaults(command=command)
        return made

    made = add("list", list_entries, "list what can be chosen")
    made.add_argument("what", nargs="?", default="methods", choices=("models", "datasets", "methods", "presets", "metrics", "runs"))
    made.add_argument("--json", action="store_true", help="as JSON, with parameters, ranges, defaults and sources")
    made = add("train", train, "carry out one run here and now; prints its name on the last line")
    made.add_argument("--config", help="a JSON file as written by Launch or a run (- for standard input)")
    for name in ("model", "dataset", "method"):
        made.add_argument(f"--{name}", default="glyphclip" if name == "model" else None)
    made.add_argument("--preset", default=None, help="settings of a paper or a purpose, with its method; `list presets` names them")
    made.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings of the method; `list methods --json` names them")
    made.add_argument("--seed", default="0")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    made.add_argument("--held-out", default=None, help="tasks to measure forgetting on, separated by commas (default: all others)")
    made.add_argument("--no-curve", action="store_true", help="do not measure the models between start and end")
    made = add("study", study, "carry out a study in the background and print its table; resumable")
    made.add_argument("name", help="demo or methods")
    made.add_argument("--here", action="store_true", help="in this process, run after run; start it again elsewhere to share the work")
    made.add_argument("--marker", type=Path, default=None, help=argparse.SUPPRESS)
    made = add("evaluate", evaluate, "measure a run again and print its scores")
    made.add_argument("run_id")
    made = add("neighbors", neighbors, "compute the pairs of UMAPs of runs on one task and print the neighbours kept")
    made.add_argument("run_id", nargs="+")
    made.add_argument("--dataset", default=None, help="task (default: the downstream one)")
    made.add_argument("--domain", default=None, help="domain (default: the task's first)")
    made.add_argument("--marker", type=Path, default=None, help=argparse.SUPPRESS)
    made = add("interpolate", interpolate_run, "write the weights between start and fine-tuned model")
    made.add_argument("run_id")
    made.add_argument("--alpha", required=True, help="0 is the foundation model, 1 the fine-tuned one")
    made.add_argument("--out", required=True, type=Path, help="folder to write")
    made = add("estimate", estimate_run, "measure a few steps of a config and print the cost as JSON")
    made.add_argument("--config", required=True, help="a JSON file (- for standard input)")
    made = add("pretrain", pretrain_model, "train GlyphCLIP from random weights (about 40 minutes on one core)")
    made.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    made.add_argument("--steps", type=int, default=None)
    made = add("bench", bench, "measure speed, as ratios within one run")
    made.add_argument("--json", action="store_true")
    add("doctor", doctor, "say what is here: versions, devices, disk, cache")
    add("supervise", supervise, "work off the queue of a runs folder (started by itself when needed)")
    return parser


def root_of(options: argparse.Namespace) -> Path:
    """Returns the runs folder that was named, or the default one."""
    from .store import default_root

    return (options.runs_dir or default_root()).expanduser().absolute()


# --- commands ---------------------------------------------------------------------------------------------------------


def list_entries(options: argparse.Namespace) -> None:
    """Prints what can be chosen."""
    from .listing import rows_of

    rows = rows_of(options.what, root_of(options))
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:{width}}  {row['summary']}")


def read_config_argument(where: str) -> RunConfig:
    """Reads a config from a file or from standard input."""
    from .configs import config_of, read_config

    if where != "-":
        return read_config(Path(where))
    try:
        raw = json.loads(sys.stdin.read(100_000))
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise UserError("standard input is not a run's config; give the JSON that Launch or a run wrote.")
    return config_of(raw)


def train(options: argparse.Namespace) -> int:
    """Carries out one run."""
    from .run import STOPPED, Stopped, run

    if options.config and (options.set or options.dataset or options.method or options.preset or options.held_out is not None):
        raise UserError("--config holds all that determines a run; leave out --dataset, --method, --preset, --set and --held-out, or change the file.")
    config = read_config_argument(options.config) if options.config else config_of_words(options)
    try:
        record = run(config, root=root_of(options), report=lambda line: print(line, flush=True))
    except Stopped:
        print("stopped; the same command goes on from the last checkpoint", flush=True)
        return STOPPED
    print(record.run_id)
    return 0


def config_of_words(options: argparse.Namespace) -> RunConfig:
    """Makes a config of what the command line names."""
    from .configs import make_config
    from .presets import find_preset

    preset = find_preset(options.preset) if options.preset else None
    method = options.method or (preset.method if preset else None)
    if not options.dataset or not method:
        raise UserError("train needs --dataset and --method (or --preset, or --config); `python -m robustft list datasets` and `list methods` name them.")
    if preset and preset.method != method:
        raise UserError(f"preset {options.preset!r} is one of {preset.method}, not of {method}; leave out --method.")
    held_out = [name for name in options.held_out.split(",") if name] if options.held_out is not None else None
    settings = {**(preset.options if preset else {}), **dict(split_setting(word) for word in options.set)}
    given = {"seed": options.seed, "device": options.device, "options": settings, "held_out": held_out, "curve": not options.no_curve}
    return make_config(options.model, options.dataset, method, **given)


def split_setting(word: str) -> tuple[str, str]:
    """Splits ``key=value``."""
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise UserError(f"--set {word!r} is not of the form key=value; write, for example, --set lr=0.001 steps=200.")
    return key, value


def study(options: argparse.Namespace) -> int:
    """Carries out a study and prints its table."""
    return study_here(options) if options.here else study_in_queue(options)


def study_here(options: argparse.Namespace) -> int:
    """Works a study off in this process, strengths first; a second process started alike shares the work."""
    from .run import STOPPED, Stopped
    from .selection import as_text, carry_out, choose, intervals, validation_table
    from .study import find_study, study_runs

    chosen, root = find_study(options.name), root_of(options)
    try:
        carry_out(chosen, root, lambda line: print(line, flush=True))
    except Stopped:
        print("stopped; the same command goes on where it was", flush=True)
        return STOPPED
    if chosen.strengths:
        print(validation_table(chosen, root).round(1).to_string(index=False))
    print(as_text(intervals(study_runs(chosen, root, choose(chosen, root)), root)))
    if options.marker:
        options.marker.touch()
    return 0


def study_in_queue(options: argparse.Namespace) -> int:
    """Puts a study into the queue and follows it; Ctrl-C leaves it running."""
    from .pipeline import ACTIVE, submit, submit_study
    from .study import as_text, comparison, find_study, progress_line, study_runs

    chosen, root = find_study(options.name), root_of(options)
    if chosen.strengths:
        print(f"{chosen.title} goes on in the background; its log and table: {submit_study(options.name, root) / 'log.txt'}")
        return 0
    names = submit(chosen.configs(), root)
    print(f"{chosen.title}: {len(names)} runs on {', '.join(chosen.datasets)}; they go on in the background if this is stopped.", flush=True)
    shown, views = "", study_runs(chosen, root)
    while any(view.state in ACTIVE for view in views):
        if (line := progress_line(views)) != shown:
            print(shown := line, flush=True)
        time.sleep(2)
        views = study_runs(chosen, root)
    print(as_text(comparison(views)))
    missing = [f"{view.run_id} ({view.state})" for view in views if view.state != "finished"]
    if missing:
        print(f"not finished: {', '.join(missing)}; run the same command again to resume.")
    return 1 if missing else 0


def evaluate(options: argparse.Namespace) -> None:
    """Measures a run again, or reads what is cached, and prints its scores."""
    from .pipeline import get_run
    from .run import remeasure

    root = root_of(options)
    remeasure(get_run(options.run_id, root).run_id, root, report=lambda line: print(line, file=sys.stderr, flush=True))
    for name, value in get_run(options.run_id, root).summary.items():
        print(f"{name:28} {value:8.4f}")


def neighbors(options: argparse.Namespace) -> None:
    """Computes maps and prints the mean share of neighbours kept."""
    from .neighborhoods import get_neighborhood, make_maps
    from .sources import domains_of
    from .store import read_run

    root = root_of(options)
    for run_id in options.run_id:
        dataset = options.dataset or read_run(run_id, root=root).config.dataset
        domain = options.domain or domains_of(dataset)[0]
        make_maps(run_id, dataset, domain, root)
        hood = get_neighborhood(run_id, dataset, domain, 10, root)
        print(
            f"{run_id}  {dataset} ({domain})  neighbours kept@10 {hood.kept.mean():.3f}  maps show {hood.shown[0]:.2f} / {hood.shown[1]:.2f} of them",
            flush=True,
        )
    if options.marker:
        options.marker.touch()


def interpolate_run(options: argparse.Namespace) -> None:
    """Writes the weights at one alpha."""
    from .export import write_interpolated

    try:
        alpha = float(options.alpha)
    except ValueError:
        raise UserError(f"alpha = {options.alpha!r} is not a number; give one from 0 to 1.") from None
    print(write_interpolated(options.run_id, alpha, options.out, root_of(options)))


def estimate_run(options: argparse.Namespace) -> None:
    """Prints what a run will cost, as one line of JSON."""
    from .estimate import estimate

    print(json.dumps(estimate(read_config_argument(options.config), root_of(options))))


def pretrain_model(options: argparse.Namespace) -> None:
    """Trains GlyphCLIP and writes its model card."""
    from .card import write_card
    from .pretrain import Recipe, pretrain

    recipe = Recipe() if options.steps is None else replace(Recipe(), steps=options.steps)
    pretrain(options.out, recipe, report=lambda line: print(line, flush=True))
    print(write_card(options.out, root_of(options)).round(1).to_string(index=False))


def bench(options: argparse.Namespace) -> None:
    """Prints measured ratios."""
    from .bench import as_text, run_bench

    rows = run_bench(root_of(options))
    print(json.dumps(rows, indent=1) if options.json else as_text(rows))


def doctor(options: argparse.Namespace) -> None:
    """Prints versions, devices, disk and cache."""
    from .doctor import examine

    for name, value in examine(root_of(options)).items():
        print(f"{name:14} {value}")


def supervise(options: argparse.Namespace) -> None:
    """Works off the queue: one job at a time on a CPU, one a GPU where there are GPUs."""
    from .slots import gpu_slots
    from .supervisor import supervise as work_off

    work_off(root_of(options), slots=gpu_slots() or [{}])


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
