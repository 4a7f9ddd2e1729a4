"""The guided story on Home: five steps, each with an address of its own, one sentence, one number, one chart."""

from pathlib import Path

import streamlit as st
from streamlit.errors import StreamlitAPIException

from .. import alphas, pipeline, side_by_side, story
from ..figures import foretelling as distances
from ..figures import forgetting, wise
from ..figures.story import knowledge_bars
from ..foretelling import drift_pairs
from ..trend import trend
from .charts import chart
from .runs import finished
from .words import plain

KEY = "step"


def draw(root: Path) -> None:
    """Draws the chosen step of the story of the newest task with finished runs; nothing where they make no story."""
    views = finished(pipeline.get_runs(root))
    if not views:
        return
    same = [view for view in views if view.config.dataset == views[0].config.dataset]
    names = forgetting.run_names({view.run_id: view.config for view in same})
    side = side_by_side.read(same, names, root)
    steps = story.tell(side)
    if not steps:
        return
    with st.container(border=True):
        place = _choose(len(steps))
        _draw_step(steps[place], place, len(steps))
        _draw_chart(side, steps[place])
        st.caption(plain(side.badge()))


def _choose(count: int) -> int:
    """Returns which step is shown, from the address or from the buttons."""
    number = st.segmented_control(
        "The story in five steps", [str(place + 1) for place in range(count)], default="1", key=KEY, bind="query-params", required=True
    )
    return int(number or 1) - 1


def _go_to(place: int) -> None:
    st.session_state[KEY] = str(place + 1)


def _draw_step(step: story.Step, place: int, count: int) -> None:
    st.subheader(f"{place + 1} · {step.title}")
    left, right = st.columns([3, 2], vertical_alignment="center")
    left.markdown(plain(step.sentence))
    right.metric(step.meaning, step.number, border=True)
    st.caption(plain(step.caution))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Back", key="story.back", icon=":material/arrow_back:", disabled=place == 0, on_click=_go_to, args=(place - 1,))
        st.button("Next", key="story.next", icon=":material/arrow_forward:", type="primary", disabled=place == count - 1, on_click=_go_to, args=(place + 1,))
        for link in step.links:
            try:
                st.page_link(link.page, label=link.label, icon=":material/search:", query_params=dict(link.query))
            except StreamlitAPIException:  # a test runs this page alone
                st.markdown(link.label)


def _draw_chart(side: side_by_side.SideBySide, step: story.Step) -> None:
    """The step's chart, one that other pages have too."""
    records, key = {record.run_id: record for record in side.records}, f"story.{step.chart}"
    if step.chart == "changes":
        changes = forgetting.change_table([records[run] for run in step.runs], "delta_zs")
        read = "bars to the left are tasks that got worse. Where the thin line crosses zero, the change cannot be told from noise."
        chart(forgetting.change_bars(changes, side.names), key, read=read, twin=changes.assign(run=changes["run"].map(side.names)))
    elif step.chart == "knowledge":
        known = story.knowledge(side.records[0])
        chart(knowledge_bars(known), key, read="the longer the bar, the more of these pictures it names right.", twin=known)
    elif step.chart == "curve":
        table = alphas.wise_table(pipeline.get_wise(step.runs[0], side.root))
        measures = [name for name in ("id_accuracy", "ood_accuracy", "mean_delta_zs") if table[name].notna().all()]
        read = "from left to right, ever more of the fine-tuned model is mixed in. The large marks are the mix that the rule picks."
        chart(wise.wise_curves(table, alphas.best_alpha(table), measures), key, read=read, twin=table)
    else:
        pairs = drift_pairs(side.records, "delta_zs")
        read = "each mark is one run on one task: further right its pictures moved further, higher up more was forgotten."
        chart(distances.drift_scatter(pairs, "otdd", side.names, trend(pairs, "otdd")), key, read=read, twin=distances.pair_table(pairs, side.names))
