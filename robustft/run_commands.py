"""The commands that ask about one finished run: what it measured, what moved, and the models between its start and its end."""

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from .commands import root_of
from .types import UserError, quoted

if TYPE_CHECKING:
    import pandas as pd

    from .pipeline import RunView


def evaluate(options: argparse.Namespace) -> None:
    """Prints what a run measured; computes again first what of it is no longer cached."""
    from .reports import task_table

    view = measured_run(options)
    for name, value in view.summary.items():
        print(f"{name:28} {value:8.4f}")
    print_table(task_table(view.record), "\nPercent, changes in points; ± is 1.96 standard errors over test images; LP noise is twice the sd of 3 refits.", 1)


def otdd(options: argparse.Namespace) -> None:
    """Prints how far every task's features moved, by OTDD and the other measures, with the settings of OTDD."""
    from .pipeline import get_details
    from .reports import drift_table, otdd_settings

    view = measured_run(options)
    details = get_details(view.run_id, root_of(options))
    print_table(drift_table(view.record), f"OTDD: {otdd_settings(details)}.", 4)
    for layer, distance in details.get("weights", {}).items():
        print(f"weights {layer:44} {distance:.4f}")


def neighbors(options: argparse.Namespace) -> None:
    """Prints the share of neighbours kept on every task, and draws the maps of one of them."""
    from .neighborhoods import get_maps, make_maps, measured_tasks
    from .reports import neighbor_table
    from .sources import domains_of

    view, root, k = measured_run(options), root_of(options), options.k
    table = neighbor_table(view.run_id, view.config, k, root)
    print_table(table, f"Of each sample's {k} nearest neighbours; low to high: 95 % bootstrap interval; noise floor: two views of the same images.", 3)
    dataset = options.dataset or view.config.dataset
    domain = options.domain or domains_of(dataset)[0]
    if domain not in measured_tasks(view.config).get(dataset, ()):
        known = ", ".join(f"{name} ({' or '.join(domains)})" for name, domains in measured_tasks(view.config).items())
        raise UserError(f"run {view.run_id} did not measure {quoted(dataset)} in domain {quoted(domain)}; choose among {known}.")
    if not options.no_maps:
        try:
            make_maps(view.run_id, dataset, domain, root)
        except UserError as error:
            print(f"no UMAP: {error}")
    maps = get_maps(view.run_id, dataset, domain, root)
    shown, trust = (" / ".join(f"{value:.3f}" for value in pair) for pair in (maps.shown, maps.trustworthiness))
    print(f"{maps.kind} maps of {dataset} ({domain}), before / after: show {shown} of the true 10 neighbours; trustworthiness {trust}")


def report(options: argparse.Namespace) -> None:
    """Writes what the Compare page shows of some runs as one HTML file."""
    from .html_report import make_report, write_report
    from .report_panels import PANELS
    from .side_by_side import read_runs

    panels = PANELS if options.panels is None else [name.strip() for name in options.panels.split(",") if name.strip()]
    print(write_report(make_report(read_runs(options.run_ids, root_of(options)), panels), options.out))


def measured_run(options: argparse.Namespace) -> "RunView":
    """Returns the finished run that was named, after computing again whatever was cleared, or was not measured by an older version."""
    from .neighborhoods import has_everything
    from .pipeline import get_run

    root = root_of(options)
    view = get_run(options.run_id, root)
    if view.state == "finished" and has_everything(view.record, root):
        return view
    from .run import remeasure  # torch and the model are loaded only if they are needed

    scores = remeasure(view.run_id, root, report=lambda line: print(line, file=sys.stderr, flush=True))
    return replace(view, record=replace(view.record, scores=tuple(scores)))


def print_table(table: "pd.DataFrame", caption: str, digits: int) -> None:
    """Prints a table for a terminal with a line below that says how to read it."""
    print(table.to_string(index=False, na_rep="-", float_format=lambda value: f"{value:.{digits}f}"))
    print(caption.strip())


def interpolate_run(options: argparse.Namespace) -> None:
    """Prints the curve between start and fine-tuned model, or writes the weights at one alpha."""
    if options.alpha is None and options.out is None:
        return print_curve(options)
    if options.alpha is None or options.out is None:
        raise UserError("--alpha and --out go together: they say which weights to write and where; without both, the curve is printed.")
    from .export import write_interpolated

    try:
        alpha = float(options.alpha)
    except ValueError:
        raise UserError(f"alpha = {options.alpha!r} is not a number; give one from 0 to 1.") from None
    print(write_interpolated(options.run_id, alpha, options.out, root_of(options)))


def print_curve(options: argparse.Namespace) -> None:
    """Prints what the WiSE-FT page draws."""
    from .alphas import SLACK, TITLES, best_alpha, wise_table
    from .pipeline import get_wise

    view = measured_run(options)
    rows = get_wise(view.run_id, root_of(options))
    if not rows:
        raise UserError(f"run {view.run_id} did not measure the models between start and end; train it without --no-curve.")
    table = wise_table(rows)
    rule = f"most mean Delta_ZS within {SLACK:g} point of the best ID validation accuracy"
    print_table(table.rename(columns=TITLES), f"Best alpha by the rule ({rule}): {best_alpha(table):g}", 1)
