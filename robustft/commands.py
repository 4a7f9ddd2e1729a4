"""The commands of the command line: each takes what was parsed, prints, and returns an exit code or nothing."""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from .types import RunConfig, RunRecord, UserError


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
    try:
        request_maps_of(record, root_of(options))
    except (UserError, OSError) as error:  # the run is finished all the same
        print(f"its maps could not be asked for: {error}", flush=True)
    print(record.run_id)
    return 0


def request_maps_of(record: RunRecord, root: Path) -> None:
    """Asks for the UMAPs of a run's own task, so that they are there when somebody looks; the run is finished without them."""
    from .neighborhoods import maps_stamp
    from .pipeline import request_maps
    from .sources import domains_of

    task = record.config.dataset
    for domain in domains_of(task):
        if not maps_stamp(record.run_id, task, domain, root):
            request_maps(record.run_id, task, domain, root)


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


def draw_maps(options: argparse.Namespace) -> None:
    """Draws the UMAPs that pages and runs ask for, until nobody asks any more."""
    from .map_worker import work
    from .neighborhoods import make_maps

    root = root_of(options)
    work(root, lambda asked: make_maps(asked["run_id"], asked["dataset"], asked["domain"], root, asked["moment"]))


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

    def report(row: dict) -> None:
        print(as_text([row]), file=sys.stderr, flush=True)

    if options.pages:
        from .bench_pages import page_rows

        rows = page_rows(report)
    else:
        rows = run_bench(root_of(options), options.only, report)
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
