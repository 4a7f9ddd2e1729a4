"""Runs side by side: their table over seeds, trade-off planes with the Pareto front, loss curves, differing options, CSV."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..types import RunConfig, StepRecord

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SPREADS = ("ID", "OOD", "mean Delta_ZS")
"""Measures whose standard deviation over seeds is shown once there are several."""
PLACES = ("top center", "bottom center")


# --- tables -----------------------------------------------------------------------------------------------------------


def over_seeds(table: pd.DataFrame, configs: Mapping[str, RunConfig], names: Mapping[str, str]) -> pd.DataFrame:
    """Returns one row for each method with the same model, task and options: means over its seeds, how many there are, and how far they differ.

    Args:
        table: One row a run, with columns ``run``, ``method``, ``task``, ``seed`` and numbers.
        configs: By run.
        names: Short name of each run; a row takes the name of its first run, without the seed.
    """
    recipes = [_recipe(configs[run]) for run in table["run"]]
    measures = [name for name in table.columns if name not in ("run", "method", "task", "seed")]
    rows = []
    for _, own in table.assign(recipe=recipes).groupby("recipe", sort=False):
        first = own.iloc[0]
        label = names[first["run"]].replace(f" s{first['seed']}", "") if len(own) > 1 else names[first["run"]]
        spreads = {f"sd of {name}": own[name].std() for name in SPREADS if name in measures}
        rows.append({"method": label, "task": first["task"], "seeds": len(own), **own[measures].mean().to_dict(), **spreads, "run": first["run"]})
    spread = [f"sd of {name}" for name in SPREADS if name in measures] if any(row["seeds"] > 1 for row in rows) else []
    return pd.DataFrame(rows, columns=["method", "task", "seeds", *measures, *spread, "run"])


def _recipe(config: RunConfig) -> str:
    """Returns all of a config but the seed and the device."""
    return repr((config.model, config.dataset, config.method, sorted(config.options.items()), config.held_out))


def differing_options(configs: Mapping[str, RunConfig], names: Mapping[str, str]) -> pd.DataFrame:
    """Returns the settings in which runs differ, one row a setting and one column a run; ``–`` where a run has no such setting.

    Example:
        >>> runs = {"a": RunConfig("m", "food", "ft", options={"lr": 0.1, "steps": 9}), "b": RunConfig("m", "food", "ft", options={"lr": 0.2, "steps": 9})}
        >>> differing_options(runs, {"a": "one", "b": "two"}).to_dict("list")
        {'setting': ['lr'], 'one': ['0.1'], 'two': ['0.2']}
    """
    settings = {
        run: {"model": c.model, "task": c.dataset, "method": c.method, "seed": c.seed, "held out": ", ".join(c.held_out), **c.options}
        for run, c in configs.items()
    }
    known = list(dict.fromkeys(key for own in settings.values() for key in own))
    words = {key: ["–" if key not in own else "none" if own[key] is None else str(own[key]) for own in settings.values()] for key in known}
    rows = [[key, *values] for key, values in words.items() if len(set(values)) > 1]
    return pd.DataFrame(rows, columns=["setting", *(names[run] for run in configs)])


def pareto_front(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Returns the positions of the points that no other point beats in one measure without losing in the other, by rising x.

    Example:
        The third point is beaten by the second in both.

        >>> pareto_front([1.0, 2.0, 1.5], [3.0, 2.0, 1.0])
        [0, 1]
    """
    points = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    whole = [i for i, point in enumerate(points) if np.isfinite(point).all()]
    beaten = {i for i in whole if any((points[j] >= points[i]).all() and (points[j] > points[i]).any() for j in whole)}
    return sorted(set(whole) - beaten, key=lambda i: (points[i][0], points[i][1]))


# --- charts -----------------------------------------------------------------------------------------------------------


def trade_off(table: pd.DataFrame, x: str, y: str, titles: tuple[str, str]) -> go.Figure:
    """Returns one measure against another, each point named, the Pareto front joined and marked with diamonds.

    Args:
        table: One row a point, with its name in ``method``.
        x: Column along the horizontal axis; more is better.
        y: Column along the vertical axis; more is better.
        titles: Of the axes, with units.
    """
    order = table.dropna(subset=[x, y]).sort_values(x, kind="stable").reset_index(drop=True)
    front = pareto_front(order[x].tolist(), order[y].tolist())
    on_front = [i in front for i in range(len(order))]
    figure = go.Figure()
    figure.add_scatter(x=order[x][front], y=order[y][front], mode="lines", line={"dash": "dot", "color": "#8A9694"}, name="Pareto front", hoverinfo="skip")
    figure.add_scatter(
        x=order[x],
        y=order[y],
        mode="markers+text",
        text=order["method"],
        textposition=[PLACES[i % len(PLACES)] for i in range(len(order))],
        marker={"symbol": ["diamond" if here else "circle-open" for here in on_front], "size": [13 if here else 10 for here in on_front]},
        name="runs",
        hovertemplate="%{text}: %{x:.1f}, %{y:.1f}<extra></extra>",
    )
    figure.update_layout(height=420, margin={"t": 10, "b": 10, "l": 10, "r": 10}, showlegend=False)
    figure.update_xaxes(title_text=titles[0], range=_wide(order[x], 0.75))
    figure.update_yaxes(title_text=titles[1], range=_wide(order[y], 0.65))
    return figure


def _wide(values: pd.Series, share: float) -> list[float] | None:
    """Returns limits with room for the names; at least 4 points, so that noise does not fill the picture."""
    if values.empty:
        return None
    middle, half = (values.max() + values.min()) / 2, max(values.max() - values.min(), 4.0) * share
    return [float(middle - half), float(middle + half)]


def loss_curves(histories: Mapping[str, Sequence[StepRecord]], part: str = "loss") -> go.Figure:
    """Returns the loss of each run by step, told apart by dashes as well as by colour.

    Args:
        histories: Steps by short name of the run.
        part: ``loss``, ``task_loss`` or ``reg_loss``.
    """
    figure = go.Figure()
    for index, (name, records) in enumerate(histories.items()):
        figure.add_scatter(
            x=[record.step for record in records],
            y=[getattr(record, part) for record in records],
            mode="lines",
            line_dash=DASHES[index % len(DASHES)],
            name=name,
            hovertemplate="step %{x}: %{y:.3f}<extra>" + name + "</extra>",
        )
    figure.update_layout(
        height=380, margin={"t": 10, "b": 10, "l": 10, "r": 10}, showlegend=True, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    )
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text={"loss": "objective", "task_loss": "task loss", "reg_loss": "regularizer"}[part] + " (no unit)")
    return figure
