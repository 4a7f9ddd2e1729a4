"""How far from zero-shot: accuracy and change of the models between the start and the fine-tuned one."""

import streamlit as st

from robustft import alphas, pipeline, ui
from robustft.figures import forgetting, wise
from robustft.methods import METHODS
from robustft.neighborhoods import measured_tasks


def head_start(view: pipeline.RunView) -> str:
    """Says what alpha 0 is for a run."""
    method = METHODS.get(view.config.method)
    start = view.config.options.get("head_start", (method.defaults if method else {}).get("head_start", "zero_shot"))
    return "the foundation model with a linear probe as its head" if start == "linear_probe" else "the foundation model with its zero-shot head"


def choose_best() -> None:
    st.session_state["alpha"] = best


root = ui.frame("WiSE-FT", "How far from zero-shot shall I go?")
with ui.errors_as_boxes():
    view = ui.pick_run(root)
    if view is None:
        st.stop()
    rows = pipeline.get_wise(view.run_id, root)
    if not rows:
        st.info(
            "This run was started without measuring the models between start and end. Launch measures them unless “WiSE-FT curve” is off under “Advanced”."
            if not view.config.curve
            else "This run has no WiSE-FT curve. Start the same method again on Launch with another seed: the curve is measured after training.",
            icon=":material/info:",
        )
        st.stop()
    table = alphas.wise_table(rows)
    config = view.config
    method = METHODS.get(config.method)
    has_ood = len(measured_tasks(config)[config.dataset]) > 1
    measures = ["id_accuracy", *(["ood_accuracy"] if has_ood else []), *(["mean_delta_zs"] if config.held_out else [])]

    # --- ask
    best = alphas.best_alpha(table)
    steps = table["alpha"].tolist()
    if st.session_state.get("alpha") not in steps and st.query_params.get("alpha") not in [f"{step:g}" for step in steps]:
        st.session_state["alpha"] = best
    meaning = "Weights are (1 - alpha) x start + alpha x fine-tuned. These are the alphas that were measured."
    alpha = st.select_slider("alpha", steps, key="alpha", bind="query-params", format_func=lambda value: f"{value:g}", help=meaning)
    st.caption(f"alpha 0 is the start: {head_start(view)}. alpha 1 is the fine-tuned model.")
    if method and method.trains == "none":
        st.info("This run trains nothing between start and end, so all alphas are the same model.", icon=":material/info:")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(f"best alpha by rule: {best:g}", icon=":material/flag:", color="primary")
        st.button("Go there", key="wise.best", on_click=choose_best, disabled=alpha == best)
    st.caption(
        f"The rule: among the alphas whose ID **validation** accuracy is within {alphas.SLACK:g} point of the best, the one with the largest mean "
        "zero-shot change on the held-out tasks. ID and OOD test accuracy play no part; the held-out change is read on the same test images as below, "
        "so at the chosen alpha it is slightly flattered."
    )

    # --- compute and draw
    here, start, end = (table[table["alpha"] == value].iloc[0] for value in (alpha, steps[0], steps[-1]))
    titles = {"id_accuracy": "ID accuracy", "ood_accuracy": "OOD accuracy", "mean_delta_zs": "Mean Δ zero-shot"}
    for column, name in zip(st.columns(len(measures)), measures, strict=True):
        unit, sign = (" points", "+") if name == "mean_delta_zs" else (" %", "")
        with column:
            st.metric(titles[name], f"{here[name]:{sign}.1f}{unit}", f"{here[name] - end[name]:+.1f} points against alpha 1", border=True)
            st.caption(f"{here[name] - start[name]:+.1f} points against alpha 0")
    samples = {score.metric: score.n for score in view.record.scores if score.metric in ("id_accuracy", "ood_accuracy")}
    noises = [f"{titles[name]} ± {forgetting.noise(here[name] / 100, n) * 100:.1f} points ({n} images)" for name, n in samples.items() if name in measures]
    st.caption(f"Sampling noise of the test set, one seed: {', '.join(noises)}. Neighbouring alphas that differ by less are not told apart.")

    left, right = st.columns(2) if has_ood else (st.container(), None)
    with left:
        st.subheader("Along alpha")
        st.plotly_chart(wise.wise_curves(table, alpha, measures), key="wise.curves")
        st.caption(
            "How to read it: the larger marks are the chosen alpha. "
            "Below zero in the lower panel: held-out tasks lost zero-shot accuracy against the foundation model."
        )
    if right is not None:
        with right:
            st.subheader("ID against OOD")
            st.plotly_chart(wise.wise_plane(table, alpha), key="wise.plane")
            st.caption("How to read it: the line leads from the start to the fine-tuned model; the star is the chosen alpha. Up and to the right is better.")
    with st.expander("Show as table"):
        shown = table[["alpha", "val_accuracy", *measures]].rename(columns=alphas.TITLES)
        formats = {title: st.column_config.NumberColumn(format="%.1f") for title in shown.columns}
        st.dataframe(shown, hide_index=True, column_config=formats)

    # --- take it along
    st.subheader("Take this model along")
    st.code(f"python -m robustft interpolate {view.run_id} --alpha {alpha:g} --out wise-{view.run_id}-{alpha:g}", language="bash", wrap_lines=True)
    st.caption("Writes the weights at this alpha as safetensors into a new folder.")
