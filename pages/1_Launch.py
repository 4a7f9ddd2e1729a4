"""Launch: what shall I run? Data, then method, then check and start."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from robustft import configs, devices, methods, pipeline, presets, ui
from robustft.registry import Param, discover
from robustft.types import RunConfig, UserError

DEFAULT_TASK = "food"
DEFAULT_METHOD = "ft"

root = ui.frame("Launch", "What shall I run? Three steps: data, method, check and start.")


# --- a config from a file ---------------------------------------------------------------------------------------------


def load_config() -> None:
    """Reads the chosen file and sets every control to it; nothing changes if it is no config."""
    st.session_state["launch.loaded"], uploaded = None, st.session_state["launch.file"]
    if uploaded is None:
        return
    try:
        set_controls(configs.config_of(read_upload(uploaded)))
        st.session_state["launch.loaded"] = (True, f"Loaded {uploaded.name}: every control below now shows it.")
    except ValueError as error:
        st.session_state["launch.loaded"] = (False, ui.words_of(error))


def read_upload(uploaded: Any) -> dict[str, Any]:
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


def set_controls(config: RunConfig) -> None:
    """Makes the controls show a config."""
    values = {"launch.model": config.model, "launch.task": config.dataset, "launch.method": config.method, "launch.device": config.device}
    values |= {
        "launch.seed": config.seed,
        "launch.curve": config.curve,
        f"launch.held_out.{config.dataset}": [name for name in discover("datasets") if name in config.held_out],
    }
    for key, value in values.items():
        st.session_state[key] = value
    set_settings(config.method, config.options)


def set_settings(method: str, options: Mapping[str, Any]) -> None:
    """Makes the fields of a method show its settings."""
    for param in methods.method_params(method):
        st.session_state[f"{method}.{param.name}"] = ui.control_value(param, options[param.name])


with st.expander("Load a config", icon=":material/upload_file:"):
    st.file_uploader("A JSON file that this page or a run wrote, at most 100 kB", type="json", max_upload_size=1, key="launch.file", on_change=load_config)
if loaded := st.session_state.get("launch.loaded"):
    (st.success if loaded[0] else st.error)(ui.plain(loaded[1]), icon=":material/check_circle:" if loaded[0] else ":material/error:")


# --- 1 data -----------------------------------------------------------------------------------------------------------


def draw_card(task: str) -> None:
    """What is in a task: sizes, domains, a few samples of each."""
    card = ui.read_task(task, root)
    sizes = ", ".join(f"{count} for {split}" for split, count in card.sizes.items())
    st.markdown(f"{ui.plain(card.summary)} **{len(card.class_names)} classes**; images per domain: {sizes}.")
    for index, (domain, images) in enumerate(card.strips.items()):
        st.caption(f"**{ui.plain(domain)}**: " + ("trained on; accuracy here is ID" if index == 0 else "never trained on; accuracy here is OOD"))
        st.image(images, width=64, alt=[f"{name}, {domain}" for name in card.strip_names])
    with st.expander(f"All {len(card.class_names)} classes"):
        st.markdown(ui.plain(", ".join(card.class_names)))


st.header("1 · Data")
tasks = list(discover("datasets"))
left, right = st.columns([1, 2], gap="large")
with left:
    model = st.selectbox("Foundation model", list(discover("backbones")), key="launch.model", bind="query-params", help="Where fine-tuning starts: theta_0.")
    task = st.selectbox("Downstream task", tasks, index=tasks.index(DEFAULT_TASK), key="launch.task", bind="query-params", help="What the model shall learn.")
    others = [name for name in tasks if name != task]
    with st.expander("Advanced: what is measured"):
        key = f"launch.held_out.{task}"
        held_out = st.multiselect("Measure forgetting on", others, default=others, key=key, bind="query-params", help="Fewer tasks measure faster.")
        if not held_out:
            st.warning("With no held-out task, forgetting is not measured.", icon=":material/warning:")
        curve = st.toggle("WiSE-FT curve", True, key="launch.curve", bind="query-params", help="Measures the models between start and end too; takes longest.")
with right, ui.errors_as_boxes():
    draw_card(task)


# --- 2 method ---------------------------------------------------------------------------------------------------------


def draw_method(method: methods.Method) -> None:
    """The card of a method."""
    with st.container(border=True):
        st.markdown(f"**{method.title}.** {method.summary}")
        for line in method.equation.split(r", \quad"):  # one below the other, for narrow screens
            st.latex(line)
        protects, cost, source = st.columns(3)
        protects.markdown(f"**Protects** {method.protects}")
        cost.markdown(f"**Costs** {method.cost}")
        source.markdown(f"**Source** {method.source}")


def draw_fields(params: list[Param], method: str, across: int = 3) -> dict[str, Any]:
    """The controls of some parameters, in rows; returns what they hold."""
    values = {}
    for begin in range(0, len(params), across):
        for column, param in zip(st.columns(across), params[begin : begin + across], strict=False):
            with column:
                values[param.name] = ui.param_control(param, f"{method}.{param.name}")
    return values


def name_device(name: str) -> str:
    """Names a device with its free memory; Auto with what it would take."""
    there = {device.name: device for device in ui.read_devices()}
    if name == "auto":
        first = next(iter(there.values()))
        return f"Auto: {first.title}, {first.free_gib:.0f} GB free"
    return f"{there[name].title} ({name}), {there[name].free_gib:.0f} GB free" if name in there else f"{name} (not on this machine)"


def apply_preset() -> None:
    """Sets method and fields to the chosen preset, or the fields to the method's defaults."""
    chosen = st.session_state["launch.preset"]
    if chosen in presets.PRESETS:
        preset = presets.PRESETS[chosen]
        st.session_state["launch.method"] = preset.method
        set_settings(preset.method, preset.resolved())
        st.query_params["launch.base"] = chosen
    elif chosen == "defaults":
        st.query_params.pop("launch.base", None)
        name = st.session_state.get("launch.method") or DEFAULT_METHOD
        set_settings(name, methods.resolve_options(name, {}))


def restore_preset() -> None:
    """Goes back to the preset in the URL after a reload; what was edited since stands in the URL by itself."""
    base = st.query_params.get("launch.base")
    if base in presets.PRESETS and not st.session_state.setdefault("launch.is_restored", False):
        preset = presets.PRESETS[base]
        for param in methods.method_params(preset.method):
            if (key := f"{preset.method}.{param.name}") not in st.query_params and key not in st.session_state:
                st.session_state[key] = ui.control_value(param, preset.resolved()[param.name])
    st.session_state["launch.is_restored"] = True


def draw_preset(method: str, options: Mapping[str, Any]) -> None:
    """The choice of presets, which follows what the fields hold: settings of nobody's are Custom."""
    try:
        shown = presets.preset_of(method, methods.resolve_options(method, options))
    except ValueError:
        shown = "custom"
    titles = {"defaults": "Defaults of the method", **{name: preset.title for name, preset in presets.PRESETS.items()}, "custom": "Custom"}
    choices = [name for name in titles if name != "custom" or shown == "custom"]
    st.session_state["launch.preset"] = shown
    st.selectbox("Preset", choices, format_func=titles.get, key="launch.preset", on_change=apply_preset, help="Settings of a paper, or for a purpose.")
    if shown in presets.PRESETS:
        preset = presets.PRESETS[shown]
        st.caption(f"{preset.note} Source: {preset.source}.")


st.header("2 · Method")
restore_preset()
preset_place = st.container()
names = list(methods.METHODS)
name = st.pills(
    "Method", names, default=DEFAULT_METHOD, required=True, format_func=lambda name: methods.METHODS[name].title, key="launch.method", bind="query-params"
)
name = name or DEFAULT_METHOD
draw_method(methods.METHODS[name])
params = list(methods.method_params(name))
options: dict[str, Any] = {}
if not params:
    st.markdown("This method trains nothing: there is nothing to set.")
own = [param for param in params if param.source != "loop"]
if own:
    st.markdown(f"**Settings of {methods.METHODS[name].title}**")
    options |= draw_fields(own, name)
if params:
    with st.expander("Training settings", expanded=not own):
        options |= draw_fields([param for param in params if param.source == "loop"], name)
with preset_place:
    draw_preset(name, options)
left, right = st.columns([1, 2])
with left:
    seed = ui.param_control(configs.SEED, "launch.seed")
with right:
    known = ["auto", *(device.name for device in ui.read_devices())]
    wanted = st.session_state.get("launch.device", "auto")
    device = st.selectbox(
        "Device",
        [*known, *([wanted] if wanted not in known else [])],
        format_func=name_device,
        key="launch.device",
        persist_state="session",
        help="Auto takes a GPU if there is one.",
    )


# --- 3 check and start ------------------------------------------------------------------------------------------------


def checked_config() -> RunConfig | None:
    """Returns the config that the controls describe, or None after a box that says what is wrong."""
    with ui.errors_as_boxes():
        config = configs.make_config(model, task, name, seed=seed, device=device, options=options, held_out=[o for o in others if o in held_out], curve=curve)
        devices.resolve_device(config.device)
        for warning in methods.check_together(name, config.options, len(ui.read_task(task, root).class_names)):
            st.warning(ui.plain(warning), icon=":material/warning:")
        return config
    return None


def resolved(config: RunConfig) -> pd.DataFrame:
    """Every setting of a config, and the method's default where it was changed."""
    defaults = {param.name: param.default for param in params}
    rows = [("model", config.model, ""), ("task", config.dataset, ""), ("method", config.method, "")]
    rows += [(key, ui.shown(value), "" if value == defaults[key] else f"default: {ui.shown(defaults[key])}") for key, value in config.options.items()]
    rows += [("seed", str(config.seed), ""), ("device", config.device, "")]
    rows.append(
        ("held-out tasks", ", ".join(config.held_out) or "none", "" if len(config.held_out) == len(others) else f"{len(config.held_out)} of {len(others)}")
    )
    return pd.DataFrame(rows, columns=["setting", "value", "note"])


def draw_estimate(config: RunConfig) -> None:
    """What the run will cost, measured when asked for."""
    known = st.session_state.setdefault("launch.estimates", {})
    key = configs.config_json(config)
    if st.button("Estimate time", icon=":material/timer:", key="launch.estimate", help="Times five steps in a process of its own: up to a minute."):
        with ui.errors_as_boxes(), st.spinner("Timing five steps of this config ..."):
            known[key] = pipeline.estimate(config, root)
    if key in known:
        measured = known[key]
        with st.container(horizontal=True):
            st.metric("Time, about", ui.duration(measured["seconds"]), width="content")
            st.metric("Memory", f"{measured['memory_mb']:,.0f} MB", width="content")
            st.metric("Disk", f"{measured['disk_mb']:,.0f} MB", width="content")
        train, measure = (ui.duration(measured[key]) for key in ("train_seconds", "measure_seconds"))
        st.caption(
            f"From five steps on this machine: about {train} of training and {measure} of measuring. Whatever else runs on this machine makes it slower."
        )


def draw_start(config: RunConfig) -> None:
    """The place in the queue and the button; says so if the same config is there already."""
    existing = next((view for view in pipeline.get_runs(root) if view.config == config), None)
    is_there = existing is not None and (existing.state == "finished" or existing.state in pipeline.ACTIVE)
    queue = pipeline.queue_summary(root)
    ahead = queue["running"] + queue["queued"]
    if existing is None or not is_there:
        st.caption(
            "The queue is empty: it starts at once." if not ahead else f"{queue['running']} running and {queue['queued']} waiting: it is number {ahead + 1}."
        )
    if existing is not None and not is_there:
        st.warning(f"This run is there already and is {existing.state}. Start goes on from its last checkpoint, if it has one.", icon=":material/history:")
    if st.button("Start", type="primary", icon=":material/play_arrow:", key="launch.start", disabled=is_there):
        (st.session_state["launch.started"],) = pipeline.submit([config], root)
        st.rerun()
    if existing is not None and is_there:
        is_new = st.session_state.get("launch.started") == existing.run_id
        words = "Started" if is_new else "This run is there already"
        (st.success if is_new else st.info)(f"{words}: it is {existing.state}. The same settings are always the same run.", icon=":material/check_circle:")
        ui.link("pages/2_Runs.py", "Open it on Runs", icon=":material/monitoring:", run=existing)


st.header("3 · Check and start")
config = checked_config()
if config is None:
    st.button("Start", type="primary", icon=":material/play_arrow:", key="launch.start", disabled=True, help="Mend what the box above says first.")
    st.stop()
left, right = st.columns(2, gap="large")
with left:
    st.dataframe(resolved(config), hide_index=True, height=330)
    st.download_button("Download this config", configs.config_json(config), f"{config.method}-{config.dataset}-s{config.seed}.json", "application/json",
                       icon=":material/download:", key="launch.download")  # fmt: skip
with right:
    st.markdown("**The same from a terminal**")
    st.code(configs.command_line(config), language="bash", wrap_lines=True)
    with ui.errors_as_boxes():
        draw_estimate(config)
    with ui.errors_as_boxes():
        draw_start(config)
