"""Home: what is here, what is running, and where do I start?"""

from pathlib import Path

import pandas as pd
import streamlit as st

from .. import pipeline, study, ui
from . import story

DEMO = study.STUDIES["demo"]


def draw() -> None:
    """Draws the page: the story where runs are only shown, else what is going on; then the way to every page."""
    root = ui.frame("robustft", "Fine-tune a vision foundation model without losing what it knew, and see what happened to its features.")
    with ui.errors_as_boxes():
        if pipeline.is_read_only():
            story.draw(root)
            draw_last(root)
        else:
            ui.live(lambda: draw_live(root), is_active=any(view.state in pipeline.ACTIVE for view in pipeline.get_runs(root)))
    draw_pages()
    if not pipeline.is_read_only():
        with ui.errors_as_boxes():
            draw_cache(root)


def draw_pages() -> None:
    """A card for every page that can be opened."""
    st.subheader("Pages")
    pages = ui.shown_pages()[1:]
    for begin in range(0, len(pages), 3):
        for column, (page, title, question, icon) in zip(st.columns(3), pages[begin : begin + 3], strict=False):
            with column.container(border=True, height="stretch"):
                ui.link(page, f"**{title}**", icon=icon)
                st.caption(question)


def draw_status(root: Path) -> None:
    """One line: where runs compute, what is running, room on the disk, what is done."""
    views, queue = pipeline.get_runs(root), pipeline.queue_summary(root)
    with st.container(horizontal=True, gap="small"):
        for device in ui.read_devices():
            st.badge(f"{ui.plain(device.title)}, {device.free_gib:.0f} GB free", icon=":material/memory:", color="gray")
        st.badge(f"{queue['running']} running, {queue['queued']} queued", icon=":material/play_circle:", color="blue" if any(queue.values()) else "gray")
        st.badge(f"{ui.free_gb(root):.0f} GB disk free", icon=":material/hard_drive:", color="gray")
        n_finished = len(ui.finished(views))
        st.badge(f"{n_finished} finished run{'' if n_finished == 1 else 's'}", icon=":material/check_circle:", color="gray")


def draw_cache(root: Path) -> None:
    """How full the feature cache is, when it is cleared, and a button that clears it now."""
    use = ui.read_cache_use(root)
    with st.popover(f"Features: {ui.size(use.bytes)} of {ui.size(use.limit)}", icon=":material/folder_data:", key="home.cache"):
        st.markdown(
            f"Features and neighbour graphs, {use.files} file{'' if use.files == 1 else 's'}, are kept so that pages open at once. "
            f"Beyond {ui.size(use.limit)} those used longest ago are cleared; set `ROBUSTFT_FEATURES_GB` before the start to change that. "
            "What is cleared can be computed again from the weights of a run."
        )
        if st.button("Clear all of them now", icon=":material/mop:", key="home.cache.clear", disabled=not use.files):
            ui.clear_features(root)
            st.rerun()


def draw_demo(root: Path) -> bool:
    """The demo study: what it will do, how far it is, or what came out. Returns whether a run of it is active."""
    views = study.study_runs(DEMO, root)
    states = [view.state for view in views]
    n_active, n_all = sum(state in pipeline.ACTIVE for state in states), len(DEMO.configs())
    with st.container(border=True):
        st.subheader(DEMO.title)
        st.markdown(f"**{DEMO.question}**")
        if not views:
            draw_offer(root, n_all)
        elif states.count("finished") == n_all:
            draw_result(root, views)
        else:
            draw_progress(root, views, n_active, n_all)
    return n_active > 0


def draw_offer(root: Path, n_all: int) -> None:
    """What pressing the button does."""
    st.markdown(
        f"Trains the bundled model on **{DEMO.datasets[0]}** with {n_all} methods ({', '.join(DEMO.methods)}), measures each on the other nine tasks, and "
        "puts them side by side. It takes about nine minutes on two CPU cores, the first results two and needs no GPU and no network. "
        "It runs in the background: you may close this page. To look at such runs at once, `make demo` opens recorded ones."
    )
    if st.button("Run the demo study", type="primary", icon=":material/play_arrow:", key="demo.start"):
        submit_demo(root)


def submit_demo(root: Path) -> None:
    """Puts the study's runs that are not finished into the queue."""
    with ui.errors_as_boxes():
        pipeline.submit(DEMO.configs(), root)
        st.rerun()


def draw_progress(root: Path, views: list[pipeline.RunView], n_active: int, n_all: int) -> None:
    """A line a run, and what can be done about them."""
    n_finished = len(ui.finished(views))
    st.markdown(
        f"{n_finished} of {n_all} runs finished." + ("" if n_active else " The others are not running: **Resume** goes on from their last checkpoints.")
    )
    for view in views:
        name, progress = st.columns([4, 6], vertical_alignment="center")
        name.markdown(f"**{ui.plain(view.config.method)}** · {ui.state_badge(view.state)}")
        if view.state in pipeline.ACTIVE:
            progress.progress(ui.share_done(view), text=ui.progress_words(view, pipeline.get_history(view.run_id, root)))
        elif view.state == "failed":
            progress.caption(ui.plain(ui.without_paths(view.message, root)) or "It failed without a message; its log on Runs may say more.")
    with st.container(horizontal=True, vertical_alignment="center"):
        if n_active:
            if st.button("Cancel the rest", icon=":material/stop:", key="demo.cancel"):
                cancel_active(root, views)
        elif st.button("Resume", type="primary", icon=":material/play_arrow:", key="demo.resume"):
            submit_demo(root)
        ui.link("pages/2_Runs.py", "Watch them on Runs", icon=":material/monitoring:")


def cancel_active(root: Path, views: list[pipeline.RunView]) -> None:
    """Cancels the last in the queue first, so that none starts meanwhile."""
    with ui.errors_as_boxes():
        for view in reversed(views):
            if pipeline.get_run(view.run_id, root).state in ("queued", "running"):
                pipeline.cancel(view.run_id, root)
        st.rerun()


def draw_result(root: Path, views: list[pipeline.RunView]) -> None:
    """The study's table and where to look next."""
    draw_table(study.comparison(views).drop(columns=["task", "seed", "run"]))
    st.caption(
        "How to read it: ID, OOD and A_LP are accuracies on the trained task in percent (higher is better). Delta_LP and Delta_ZS are mean changes "
        f"on the held-out tasks in points (below zero: forgetting). Each row is {len(DEMO.seeds)} seed, so small differences mean nothing yet."
    )
    with st.container(horizontal=True):
        ui.link("pages/6_Compare.py", "Which regularizer wins? Compare", icon=":material/leaderboard:")
        ui.link("pages/5_Forgetting.py", "What did it cost? Forgetting", icon=":material/trending_down:")
        ui.link("pages/3_Neighborhoods.py", "What moved? Neighborhoods", icon=":material/hub:")


def draw_table(table: pd.DataFrame) -> None:
    """A table of numbers with one decimal, drift with more."""
    formats = {title: st.column_config.NumberColumn(title.removeprefix("mean "), format=f"%.{study.DRIFTS.get(title, 1)}f") for title in study.COLUMNS.values()}
    st.dataframe(table, hide_index=True, column_config=formats, placeholder="–")


def draw_last(root: Path, count: int = 5) -> None:
    """The newest runs, each with its state and headline."""
    st.subheader("Last runs")
    views = pipeline.get_runs(root)[:count]
    if not views:
        st.info("No runs yet. Press “Run the demo study” above, or set up your own run on Launch.", icon=":material/info:")
        return
    for view in views:
        name, numbers = st.columns([4, 6], vertical_alignment="center")
        with name:
            ui.link("pages/2_Runs.py", ui.plain(ui.label_of(view)), run=view)
        words = headline(view)
        numbers.markdown(ui.state_badge(view.state) + (f" · :gray[{words}]" if words else ""))


def headline(view: pipeline.RunView) -> str:
    """A run's ID and OOD accuracy and mean change, or what it is doing."""
    summary = view.summary
    if not summary:
        return ui.progress_words(view) if view.state in ("queued", "running") else ""
    names = {"id_accuracy": "ID {:.1f} %", "ood_accuracy": "OOD {:.1f} %", "mean_delta_zs": "Delta_ZS {:+.1f} points"}
    return " · ".join(text.format(100 * summary[key]) for key, text in names.items() if key in summary)


def draw_live(root: Path) -> bool:
    """All that changes while runs go on."""
    is_active = False
    with ui.errors_as_boxes():
        draw_status(root)
        draw_demo(root)
        draw_last(root)
        is_active = any(view.state in pipeline.ACTIVE for view in pipeline.get_runs(root))
    return is_active
