"""The parts of Launch: controls set from a file or from a run, what a run is in full, what it costs, and its start."""

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from .. import configs, methods, pipeline
from ..registry import discover
from ..types import RunConfig, UserError
from .cached import read_task
from .controls import control_value
from .frame import link
from .words import duration, errors_as_boxes, plain, shown, words_of

ONE, SWEEP = "one run", "a sweep"
SOURCE = "launch.source"
"""Where the session remembers which run the controls came from; a link that asks for a run anew takes it away."""

_TOLD = "launch.loaded"


# --- controls from elsewhere ------------------------------------------------------------------------------------------


def draw_load() -> None:
    """The choice of a config file."""
    with st.expander("Load a config", icon=":material/upload_file:"):
        about = "A JSON file that this page or a run wrote, at most 100 kB"
        st.file_uploader(about, type="json", max_upload_size=1, key="launch.file", on_change=_load_file)


def draw_told() -> None:
    """What became of the last config that was loaded."""
    if told := st.session_state.get(_TOLD):
        (st.success if told[0] else st.error)(plain(told[1]), icon=":material/check_circle:" if told[0] else ":material/error:")


def _load_file() -> None:
    """Reads the chosen file and sets every control to it; nothing changes if it is no config."""
    st.session_state[_TOLD], uploaded = None, st.session_state["launch.file"]
    if uploaded is None:
        return
    try:
        set_controls(configs.config_of(_read_upload(uploaded)))
        forget_source()
        st.session_state[_TOLD] = (True, f"Loaded {uploaded.name}: every control below now shows it.")
    except ValueError as error:
        st.session_state[_TOLD] = (False, words_of(error))


def _read_upload(uploaded: Any) -> dict[str, Any]:
    """Returns the JSON object in an uploaded file."""
    if uploaded.size > configs.CONFIG_BYTES:
        raise UserError(f"the file has {uploaded.size:,} bytes; a config has at most {configs.CONFIG_BYTES:,}. Give a JSON file that Launch or a run wrote.")
    try:
        raw = json.loads(uploaded.getvalue())
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise UserError("the file is not a run's config; give a JSON file that Launch or a run wrote.")
    return raw


def load_run_of_url(root: Path) -> None:
    """Sets every control as in the run that ``?from=`` names, with half its batch where ``&half=1`` stands too.

    What was edited since stands in the address by itself, and wins after a reload.
    """
    run_id, is_half = st.query_params.get("from"), st.query_params.get("half") == "1"
    asked = None if run_id is None else (run_id, is_half)
    if run_id is None or st.session_state.get(SOURCE) == asked:
        return
    st.session_state[SOURCE] = asked
    try:
        config = configs.config_of(json.loads(configs.config_json(pipeline.get_run(run_id, root).config)))
        words = f"Every control below shows the settings of run {run_id}, but for what was changed since."
        if is_half:
            words, config = f"{words} {_half_words(config)}", halved(config)
        set_controls(config, but=set(st.query_params))
        st.session_state[_TOLD] = (True, words)
    except (ValueError, LookupError) as error:
        st.session_state[_TOLD] = (False, words_of(error))


def forget_source() -> None:
    """Takes the run out of the address that the controls came from: they come from elsewhere now."""
    for name in ("from", "half"):
        st.query_params.pop(name, None)


def halved(config: RunConfig) -> RunConfig:
    """Returns a config with half its batch, as far down as its method allows; unchanged where there is no batch.

    Example:
        >>> config = configs.make_config("glyphclip", "food", "ft", options={"batch_size": 64})
        >>> halved(config).options["batch_size"], halved(configs.make_config("glyphclip", "food", "zero_shot")).options
        (32, {})
    """
    low = next((param.low for param in methods.method_params(config.method) if param.name == "batch_size"), None)
    if low is None:
        return config
    return replace(config, options={**config.options, "batch_size": max(int(low), config.options["batch_size"] // 2)})


def _half_words(config: RunConfig) -> str:
    size = config.options.get("batch_size")
    if size is None:
        return "Its method has no batch to halve."
    return f"Its batch of {size} is halved to {halved(config).options['batch_size']}; each step sees fewer images, so think of more steps."


def set_controls(config: RunConfig, but: Collection[str] = ()) -> None:
    """Makes the controls show a config, all but those with some keys."""
    values: dict[str, Any] = {"launch.model": config.model, "launch.task": config.dataset, "launch.method": config.method, "launch.device": config.device}
    values |= {
        "launch.mode": ONE,
        "launch.seed": config.seed,
        "launch.curve": config.curve,
        f"launch.held_out.{config.dataset}": [name for name in discover("datasets") if name in config.held_out],
    }
    for key, value in (values | settings_of(config.method, config.options)).items():
        if key not in but:
            st.session_state[key] = value


def settings_of(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the fields of a method hold, by key, to show its settings.

    Example:
        >>> settings_of("l2_sp", methods.resolve_options("l2_sp", {}))["l2_sp.reg_weight"]
        '0.1'
    """
    return {f"{method}.{param.name}": control_value(param, options[param.name]) for param in methods.method_params(method)}


# --- a task -----------------------------------------------------------------------------------------------------------


def draw_task(task: str, root: Path) -> None:
    """What is in a task: sizes, domains, a few samples of each."""
    card = read_task(task, root)
    sizes = ", ".join(f"{count} for {split}" for split, count in card.sizes.items())
    st.markdown(f"{plain(card.summary)} **{len(card.class_names)} classes**; images per domain: {sizes}.")
    for index, (domain, images) in enumerate(card.strips.items()):
        st.caption(f"**{plain(domain)}**: " + ("trained on; accuracy here is ID" if index == 0 else "never trained on; accuracy here is OOD"))
        st.image(images, width=64, alt=[f"{name}, {domain}" for name in card.strip_names])
    with st.expander(f"All {len(card.class_names)} classes"):
        st.markdown(plain(", ".join(card.class_names)))


# --- check and start --------------------------------------------------------------------------------------------------


def resolved(config: RunConfig) -> pd.DataFrame:
    """Returns every setting of a config, and the method's default where it was changed."""
    defaults = {param.name: param.default for param in methods.method_params(config.method)}
    others = len(discover("datasets")) - 1
    rows = [("model", config.model, ""), ("task", config.dataset, ""), ("method", config.method, "")]
    rows += [(key, shown(value), "" if value == defaults[key] else f"default: {shown(defaults[key])}") for key, value in config.options.items()]
    rows += [("seed", str(config.seed), ""), ("device", config.device, "")]
    held_out = ", ".join(config.held_out) or "none"
    rows.append(("held-out tasks", held_out, "" if len(config.held_out) == others else f"{len(config.held_out)} of {others}"))
    return pd.DataFrame(rows, columns=["setting", "value", "note"])


def draw_config(config: RunConfig) -> None:
    """A config in full, to read and to take along."""
    name = f"{config.method}-{config.dataset}-s{config.seed}.json"
    st.dataframe(resolved(config), hide_index=True, height=330)
    st.download_button(
        "Download this config", configs.config_json(config), name, "application/json", icon=":material/download:", key="launch.download", on_click="ignore"
    )


def draw_command(config: RunConfig) -> None:
    """The command line that does the same."""
    st.markdown("**The same from a terminal**")
    st.code(configs.command_line(config), language="bash", wrap_lines=True)


def draw_estimate(config: RunConfig, root: Path) -> None:
    """What the run will cost, measured when asked for."""
    known = st.session_state.setdefault("launch.estimates", {})
    key = configs.config_json(config)
    if st.button("Estimate time", icon=":material/timer:", key="launch.estimate", help="Times five steps in a process of its own: up to a minute."):
        with errors_as_boxes(), st.spinner("Timing five steps of this config ..."):
            known[key] = pipeline.estimate(config, root)
    if key in known:
        measured = known[key]
        with st.container(horizontal=True):
            st.metric("Time, about", duration(measured["seconds"]), width="content")
            st.metric("Memory", f"{measured['memory_mb']:,.0f} MB", width="content")
            st.metric("Disk", f"{measured['disk_mb']:,.0f} MB", width="content")
        train, measure = (duration(measured[key]) for key in ("train_seconds", "measure_seconds"))
        st.caption(
            f"From five steps on this machine: about {train} of training and {measure} of measuring. Whatever else runs on this machine makes it slower."
        )


def draw_start(config: RunConfig, root: Path) -> None:
    """The place in the queue and the button; says so if the same config is there already."""
    existing = next((view for view in pipeline.get_runs(root) if view.config == config), None)
    is_there = existing is not None and (existing.state == "finished" or existing.state in pipeline.ACTIVE)
    if existing is None or not is_there:
        draw_queue(root)
    if existing is not None and not is_there:
        st.warning(f"This run is there already and is {existing.state}. Start goes on from its last checkpoint, if it has one.", icon=":material/history:")
    if st.button("Start", type="primary", icon=":material/play_arrow:", key="launch.start", disabled=is_there):
        (st.session_state["launch.started"],) = pipeline.submit([config], root)
        st.rerun()
    if existing is not None and is_there:
        is_new = st.session_state.get("launch.started") == existing.run_id
        words = "Started" if is_new else "This run is there already"
        (st.success if is_new else st.info)(f"{words}: it is {existing.state}. The same settings are always the same run.", icon=":material/check_circle:")
        link("pages/2_Runs.py", "Open it on Runs", icon=":material/monitoring:", run=existing)


def draw_queue(root: Path) -> None:
    """How many jobs are ahead of a run that is started now."""
    queue = pipeline.queue_summary(root)
    ahead = queue["running"] + queue["queued"]
    empty = "The queue is empty: it starts at once."
    st.caption(f"{queue['running']} running and {queue['queued']} waiting: it is number {ahead + 1}." if ahead else empty)


def draw_blocked() -> None:
    """The button that starts, greyed: something above is wrong."""
    st.button("Start", type="primary", icon=":material/play_arrow:", key="launch.start", disabled=True, help="Mend what the box above says first.")
