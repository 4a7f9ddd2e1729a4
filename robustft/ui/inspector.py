"""One sample on a page: its picture, what the models said, its neighbours before and after; and the table to choose it from."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from ..figures.neighborhoods import KEPT, neighbor_fates, picture
from . import looking, map_pair
from .charts import table
from .looking import Look
from .words import plain

ICONS = {"kept": ":material/check:", "lost": ":material/remove:", "gained": ":material/add:"}
FRAMES = """<style>
[class*="st-key-fate-kept"] img {outline: 3px solid #009E73}
[class*="st-key-fate-lost"] img {outline: 3px dashed #D55E00}
[class*="st-key-fate-gained"] img {outline: 3px double #0072B2}
</style>"""
"""Frames of kept, lost and gained neighbours: a kind of line each beside the colour, and the word stands below."""
PICTURES = 10


def draw(look: Look) -> None:
    """Draws the chosen sample with its neighbours, and below it the table of the selection, or of all."""
    st.subheader("One sample and its neighbours")
    if (chosen := st.session_state.get("sample")) is not None and not 0 <= chosen < len(look.data):
        st.session_state["sample"] = None
    sample = st.number_input("Sample", 0, len(look.data) - 1, None, key="sample", bind="query-params", placeholder="number of a sample", width=220)
    _draw_selection(look)
    if sample is None:
        st.info("No sample chosen. Click a point, choose a row of the table, or type a sample's number.", icon=":material/info:")
        return
    st.html(FRAMES)  # a constant of ours
    _draw_sample(look, sample)
    for title, fates in zip(("Before", "After"), neighbor_fates(look.hood.graph_0, look.hood.graph_1, sample), strict=True):
        _draw_neighbors(look, title, fates)


def go_to(sample: int) -> None:
    """Makes a sample the chosen one; for a button's callback."""
    st.session_state["sample"] = sample


def _draw_sample(look: Look, sample: int) -> None:
    """The sample's picture, class, share kept, and what the models said."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.image(picture(look.data, sample), width=112, alt=look.names[sample])
        with st.container(width=460, gap=None):
            st.markdown(f"**{plain(look.names[sample])}**, sample {sample}")
            st.markdown(f"kept {look.kept[sample] * 100:.0f} % of its {look.k} neighbours")
            for line in _said(look, sample):
                st.markdown(line)


def _said(look: Look, sample: int) -> list[str]:
    """Says what the models took a sample for, each with a sign, a word and how sure it was."""
    answers = look.answers()
    if answers is None:
        return []
    told = {"before": (answers.before, answers.confidence_before), "after": (answers.after, answers.confidence_after)}
    words = []
    for side, (classes, confidence) in told.items():
        guess = int(classes[sample])
        verdict = ":material/check: right" if guess == int(look.data.labels[sample]) else ":material/close: wrong"
        words.append(f"{side}: “{plain(look.data.class_names[guess])}”, {confidence[sample] * 100:.0f} % sure, {verdict}")
    return words


def _draw_neighbors(look: Look, title: str, fates: pd.DataFrame) -> None:
    """The nearest neighbours as framed pictures; a press on one makes it the sample."""
    first = fates.head(PICTURES)
    count = f"the nearest {len(first)} of {len(fates)}" if len(fates) > len(first) else f"all {len(first)}"
    words = ", ".join(f"{number} {fate}" for fate, number in fates["fate"].value_counts().items())
    st.markdown(f"**{title}**: {words} ({count} shown)")
    with st.container(horizontal=True, gap="xxsmall"):
        for row in first.itertuples():
            with st.container(width=76, gap=None, key=f"fate-{row.fate}-{title}-{row.id}"):
                st.image(picture(look.data, row.id), width=66, alt=f"{look.names[row.id]}, {row.fate}")
                st.caption(f"{ICONS[row.fate]} **{row.fate}**  \n:small[{plain(look.names[row.id])}]  \n:small[cos {row.cosine:.2f}]")
                st.button(f"→ {row.id}", key=f"follow.{title}.{row.id}", type="tertiary", on_click=go_to, args=(row.id,), help="Go to this neighbour.")


def _draw_selection(look: Look) -> None:
    """What the lasso holds, and the table to choose a sample from, by mouse or keyboard."""
    chosen = looking.selection(look)
    if chosen:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f"**Selection:** {len(chosen)} samples kept {look.kept[chosen].mean() * 100:.0f} % of their neighbours on average; "
                f"all {len(look.data)} kept {look.kept.mean() * 100:.0f} %.",
                width="content",
            )
            st.button("Clear selection", key="selected.clear", icon=":material/deselect:", on_click=map_pair.clear, args=(look,))
    title = f"Choose among the {len(chosen)} selected samples" if chosen else "Choose from the table"
    with st.expander(title, icon=":material/table:"):
        _draw_table(look, chosen or range(len(look.data)))


def _draw_table(look: Look, ids: Sequence[int]) -> None:
    rows = sample_rows(look).iloc[list(ids)].sort_values(KEPT, kind="stable")
    key = f"samples.{look.key}.{look.k}.{hash(tuple(ids))}"
    st.caption("Choose a row with a click, or with the arrow keys and the space bar.")
    st.dataframe(
        rows,
        key=key,
        hide_index=True,
        height=260,
        column_config={KEPT: st.column_config.NumberColumn(format="%.0f"), "confidence": st.column_config.NumberColumn(format="%.2f")},
        on_select=lambda: _take_row(rows, key),
        selection_mode="single-row",
    )


def _take_row(rows: pd.DataFrame, key: str) -> None:
    chosen = st.session_state[key]["selection"]["rows"]
    if chosen:
        st.session_state["sample"] = int(rows["id"].iloc[chosen[0]])


def sample_rows(look: Look) -> pd.DataFrame:
    """Returns a row a sample: number, class, neighbours kept, and what came of its answer where that is known."""
    rows = pd.DataFrame({"id": range(len(look.data)), "class": list(look.names), KEPT: look.kept * 100})
    return rows.assign(**{name: list(words) for name, words in look.groupings().items()})


def draw_most_changed(look: Look, count: int = 12) -> None:
    """A gallery of the samples that changed most; a press on one shows it above."""
    st.subheader("Most changed samples")
    answers = sample_rows(look)
    kinds = ["kept fewest neighbours", *(["became wrong"] if "correctness" in answers else [])]
    kind = st.segmented_control("Which", kinds, default=kinds[0], key="gallery", bind="query-params", required=True, label_visibility="collapsed")
    rows = answers[answers["correctness"] == "became wrong"] if kind == "became wrong" and "correctness" in answers else answers
    rows = rows.sort_values(KEPT, kind="stable")
    if rows.empty:
        st.info("No sample was right before and is wrong now.", icon=":material/info:")
        return
    with st.container(horizontal=True, gap="small"):
        for row in rows.head(count).to_dict("records"):
            with st.container(width=92, gap=None):
                st.image(picture(look.data, row["id"]), width=84, alt=str(row["class"]))
                st.caption(f"{plain(str(row['class']))}  \n:small[kept {row[KEPT]:.0f} %]")
                st.button(f"→ {row['id']}", key=f"changed.{row['id']}", type="tertiary", on_click=go_to, args=(row["id"],), help="Show it above.")
    st.caption(f"{min(count, len(rows))} of {len(rows)} samples that {kind if kind != 'became wrong' else 'were right before and are wrong now'}.")
    with st.expander("Show as table"):
        table(rows.head(200), "most-changed", formats={KEPT: "%.0f"})
