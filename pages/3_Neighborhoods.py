"""What moved in feature space: maps before and after, and the neighbours of a sample kept, lost and gained."""

import streamlit as st

from robustft import pipeline, ui
from robustft.figures import neighborhoods as figures
from robustft.intervals import bootstrap_mean
from robustft.methods import METHODS
from robustft.neighborhoods import maps_stamp, measured_tasks

ICONS = {"kept": ":material/check:", "lost": ":material/remove:", "gained": ":material/add:"}
PICTURES = 10


def pick_from_map() -> None:
    """Makes the point that was clicked the chosen sample; a lasso chooses none."""
    selection = st.session_state[MAP_KEY]["selection"]
    picked, rows = figures.newly_picked(selection["selected"], st.session_state.get("neighborhoods.seen", []))
    st.session_state["neighborhoods.seen"] = rows
    if picked is not None and not selection["areas"]:
        st.session_state["sample"] = picked


def pick_from_table() -> None:
    rows = st.session_state[TABLE_KEY]["selection"]["rows"]
    if rows:
        st.session_state["sample"] = int(shown_rows["id"].iloc[rows[0]])


def show_neighbors(title: str, fates, names) -> None:
    first = fates.head(PICTURES)
    count = f"the nearest {len(first)} of {len(fates)}" if len(fates) > len(first) else f"all {len(first)}"
    words = ", ".join(f"{number} {fate}" for fate, number in fates["fate"].value_counts().items())
    st.markdown(f"**{title}**: {words} ({count} shown)")
    captions = [f"{ICONS[row.fate]} **{row.fate}**  \n:small[{ui.plain(names[row.id])}]  \n:small[cos {row.cosine:.2f}]" for row in first.itertuples()]
    with st.container(horizontal=True, gap="xxsmall"):
        for row, caption in zip(first.itertuples(), captions, strict=True):
            with st.container(width=78, gap=None):
                st.image(figures.picture(data, row.id), width=66, alt=f"{names[row.id]}, {row.fate}")
                st.caption(caption)


@st.fragment(run_every=3)
def wait_for_maps(since: float) -> None:
    """Asks for the UMAPs, once, says how it stands, and draws the page again when they are there."""
    if maps_stamp(view.run_id, task, domain, root) > since:
        st.rerun()
    with ui.errors_as_boxes():
        wanted = (view.run_id, task, domain, root)
        state, words = pipeline.maps_state(*wanted)
        if state == "failed":
            why = ui.plain(ui.without_paths(words, root))
            st.warning(f"There is no UMAP of these samples, so this is the PCA picture. {why}", icon=":material/error:")
            if st.button("Draw again", key="neighborhoods.umap", icon=":material/refresh:", help="Asks for the UMAP once more."):
                pipeline.request_maps(*wanted)
                st.rerun()
            return
        pipeline.request_maps(*wanted)  # at every look: it changes nothing but to start the process anew where it was killed
        words = pipeline.maps_state(*wanted)[1]
        st.info(f"This is the PCA picture. The UMAP is drawn in the background and appears here by itself. {words}", icon=":material/schedule:")


root = ui.frame("Neighborhoods", "What moved in feature space?")
with ui.errors_as_boxes():
    view = ui.pick_run(root)
    if view is None:
        st.stop()

    # --- what to look at
    tasks = measured_tasks(view.config)
    left, middle, right = st.columns(3)
    task = left.selectbox("Task", list(tasks), key="task", bind="query-params", help="The downstream task first, then the held-out tasks.")
    domain = middle.selectbox("Domain", tasks[task], key="domain", bind="query-params", help="The first domain of a task is the in-distribution one.")
    n = max((score.n for score in view.record.scores if (score.dataset, score.domain, score.metric) == (task, domain, "zs_accuracy")), default=51)
    high = min(50, n - 1)
    meaning = "How many nearest neighbours of a sample are looked at. Kept = in the list both before and after."
    k = right.slider("Neighbours (k)", 5, high, min(10, high), key="k", bind="query-params", help=meaning) if high > 5 else max(1, high)
    stamp = maps_stamp(view.run_id, task, domain, root)
    hood = ui.read_neighborhood(view.run_id, task, domain, k, stamp, root)
    data, kept = hood.data, hood.kept
    names = [data.class_names[int(label)] for label in data.labels]

    if METHODS[view.config.method].trains == "none" if view.config.method in METHODS else False:
        st.info("This run does not train the image tower: before and after are the same features, so every neighbour is kept.", icon=":material/info:")

    # --- the pair of maps
    left, right = st.columns([2, 3])
    colour_by = left.segmented_control("Colour by", ["class", "neighbours kept", "nothing"], default="class", key="neighborhoods.colour") or "nothing"
    highlight: list[str] = []
    if colour_by == "class":
        highlight = right.multiselect(
            "Highlight classes",
            sorted(set(names)),
            figures.default_highlight(data, kept),
            max_selections=12,
            key=f"neighborhoods.classes.{view.run_id}.{task}.{domain}",
            help="These are coloured, all others grey. At first: the classes that kept fewest neighbours.",
        )
        highlight = highlight or [""]  # none chosen: all are other classes
    maps, inspector = st.container(), st.container()
    if st.session_state.get("sample") is not None and not 0 <= st.session_state["sample"] < len(data):
        st.session_state["sample"] = None
    with inspector:
        st.subheader("One sample and its neighbours")
        sample = st.number_input("Sample", 0, len(data) - 1, None, key="sample", bind="query-params", placeholder="number of a sample", width=220)
    fates = figures.neighbor_fates(hood.graph_0, hood.graph_1, sample) if sample is not None else ()
    rows = figures.map_rows(data, kept, hood.maps.before, hood.maps.after, highlight)
    palette = st.get_option(f"theme.{st.context.theme.type or 'light'}.chartCategoricalColors")
    MAP_KEY = f"neighborhoods.map.{view.run_id}.{task}.{domain}"
    option = figures.pair_of_maps(rows, palette, by_kept=colour_by == "neighbours kept", sample=sample, fates=fates)
    with maps:
        described = f"Two maps of {len(data)} samples, before and after fine-tuning. The table below holds the same."
        event = st.echarts_chart(option, key=MAP_KEY, on_select=pick_from_map, height=480, alt=described)
        st.caption(
            f"2-D picture ({hood.maps.kind}) of {len(data)} of {len(data)} test samples of {ui.plain(task)} ({ui.plain(domain)}); "
            "the second map is turned onto the first. "
            f"Before / after, it keeps {hood.maps.shown[0] * 100:.0f} % / {hood.maps.shown[1] * 100:.0f} % of each sample's true 10 neighbours; "
            f"trustworthiness {hood.maps.trustworthiness[0]:.3f} / {hood.maps.trustworthiness[1]:.3f} (1 is perfect). "
            "Distances between clusters mean nothing. All numbers on this page come from the full features, not from this picture. "
            "Click a point for its neighbours: solid lines lead to kept ones, dashed lines to lost (left) or gained (right) ones. "
            "With the lasso, what you mark on one side lights up on the other; a double-click clears it."
        )
        if hood.maps.kind != "UMAP":
            wait_for_maps(stamp)

    # --- one sample
    with inspector:
        chosen = event["selection"]
        lassoed = sorted({int(row) for group in chosen["selected"] for row in group["data_indices"] if row < len(data)}) if chosen["areas"] else []
        table = rows[["id", "class", "kept"]].assign(kept=kept * 100).rename(columns={"kept": "neighbours kept (%)"})
        shown_rows = (table.iloc[lassoed] if lassoed else table).sort_values("neighbours kept (%)", kind="stable")
        TABLE_KEY = f"neighborhoods.table.{view.run_id}.{task}.{domain}.{k}.{hash(tuple(lassoed))}"
        if lassoed:
            st.markdown(
                f"**Lasso:** {len(lassoed)} samples kept {kept[lassoed].mean() * 100:.0f} % of their neighbours on average; "
                f"all {len(data)} kept {kept.mean() * 100:.0f} %."
            )
        with st.expander("Choose from the table" if not lassoed else f"Choose among the {len(lassoed)} lassoed samples", icon=":material/table:"):
            formats = {"neighbours kept (%)": st.column_config.NumberColumn(format="%.0f")}
            st.dataframe(shown_rows, key=TABLE_KEY, hide_index=True, height=260, column_config=formats, on_select=pick_from_table, selection_mode="single-row")
        if sample is None:
            st.info("No sample chosen. Click a point, choose a row of the table, or type a sample's number.", icon=":material/info:")
        else:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.image(figures.picture(data, sample), width=112, alt=names[sample])
                with st.container(width=260, gap=None):
                    st.markdown(f"**{ui.plain(names[sample])}**, sample {sample}")
                    st.markdown(f"kept {kept[sample] * 100:.0f} % of its {k} neighbours")
            show_neighbors("Before", fates[0], names)
            show_neighbors("After", fates[1], names)

    # --- all samples and classes
    left, right = st.columns(2)
    with left:
        st.subheader("Neighbours kept")
        low, high = bootstrap_mean(kept)
        floor = None if hood.floor is None else bootstrap_mean(hood.floor)
        st.plotly_chart(figures.kept_histogram(kept, k, floor), key="neighborhoods.histogram")
        noise = (
            ""
            if floor is None
            else (
                f"**Noise alone** keeps {floor[0] * 100:.0f} to {floor[1] * 100:.0f} % (the band): what two slightly different crops of the same images "
                "have in common under the foundation model. A mean inside the band has moved no more than that. "
            )
        )
        st.caption(
            f"Each sample counts once: how many of its {k} nearest neighbours before are still among the {k} nearest after; on average "
            f"{kept.mean() * 100:.0f} % (95 % interval {low * 100:.0f} to {high * 100:.0f} %). {noise}"
            f"To the right: little moved. By chance alone it would be {k / max(1, len(data) - 1) * 100:.0f} %."
        )
        with st.expander("Show as table"):
            counts = table["neighbours kept (%)"].round(1).value_counts().sort_index().rename("samples")
            st.dataframe(counts, column_config={"_index": "neighbours kept (%)"})
    with right:
        st.subheader("By class")
        classes = figures.class_table(data, kept, hood.purity_0, hood.purity_1)
        numbers = [title for title in classes.columns if title not in ("class", "samples")]
        st.dataframe(classes, hide_index=True, height=300, column_config={title: st.column_config.NumberColumn(format="%.1f") for title in numbers})
        st.caption(
            f"Classes that kept fewest neighbours first; ± is 1.96 standard errors over a class's samples, {classes['samples'].min()} or more of one seed. "
            f"Own class: the share of the {k} neighbours that are of the sample's class; the rest crosses classes. "
            f"All samples: {hood.purity_0.mean() * 100:.0f} % before, {hood.purity_1.mean() * 100:.0f} % after."
        )
