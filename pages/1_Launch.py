"""Launch: what shall I run? Data, then method, then check and start."""

from typing import Any

import streamlit as st

from robustft import configs, devices, methods, pipeline, ui
from robustft.registry import discover
from robustft.types import RunConfig
from robustft.ui import launching, method_form, sweeping

DEFAULT_TASK = "food"

root = ui.frame("Launch", "What shall I run? Three steps: data, method, check and start.")
if pipeline.is_read_only():
    st.info("This dashboard only shows what others ran; `make app` starts one of your own, where you can launch runs.", icon=":material/visibility:")
launching.load_run_of_url(root)
if not ui.is_presenting():
    launching.draw_load()
launching.draw_told()


# --- 1 data -----------------------------------------------------------------------------------------------------------

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
    launching.draw_task(task, root)


# --- 2 method ---------------------------------------------------------------------------------------------------------

st.header("2 · Method")
about_mode = "A sweep is several methods, seeds and strengths at once."
mode = st.segmented_control("Make", [launching.ONE, launching.SWEEP], default=launching.ONE, required=True, key="launch.mode", bind="query-params",
                            help=about_mode)  # fmt: skip
name, options, seed, asked = "", {}, 0, {}
if mode == launching.SWEEP:
    asked = sweeping.ask_sweep()
else:
    name, options = method_form.ask_method()
left, right = st.columns([1, 2])
if mode != launching.SWEEP:
    with left:
        seed = ui.param_control(configs.SEED, "launch.seed")
with right if mode != launching.SWEEP else left:
    device = method_form.ask_device()


# --- 3 check and start ------------------------------------------------------------------------------------------------


def warn_of(config: RunConfig, told: set[str]) -> None:
    """Raises what cannot run here, and warns once of what will hardly do what is meant."""
    for warning in methods.check_together(config.method, config.options, len(ui.read_task(task, root).class_names)):
        if warning not in told:
            st.warning(ui.plain(warning), icon=":material/warning:")
        told.add(warning)


def checked_runs() -> list[RunConfig]:
    """Returns the runs that the controls describe; none after a box that says what is wrong."""
    same: dict[str, Any] = {"device": device, "held_out": [other for other in others if other in held_out], "curve": curve}
    with ui.errors_as_boxes():
        if mode == launching.SWEEP:
            runs = sweeping.read_sweep(asked, model=model, task=task, **same)
        else:
            runs = [configs.make_config(model, task, name, seed=seed, options=options, **same)]
        devices.resolve_device(device)
        told: set[str] = set()
        for run in runs:
            warn_of(run, told)
        return runs
    return []


def draw_one(config: RunConfig) -> None:
    """One run in full and its start; an audience sees neither settings nor command line."""
    left, right = st.columns(2, gap="large")
    if not ui.is_presenting():
        with left:
            launching.draw_config(config)
    with left if ui.is_presenting() else right:
        if not ui.is_presenting():
            launching.draw_command(config)
        if pipeline.is_read_only():
            return
        with ui.errors_as_boxes():
            launching.draw_estimate(config, root)
        with ui.errors_as_boxes():
            launching.draw_start(config, root)


st.header("3 · Check and start")
runs = checked_runs()
if not runs and not pipeline.is_read_only():
    launching.draw_blocked()
elif runs and mode == launching.SWEEP:
    with ui.errors_as_boxes():
        sweeping.draw_plan(runs, root)
elif runs:
    draw_one(runs[0])
