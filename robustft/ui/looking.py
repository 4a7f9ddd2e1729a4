"""What the Neighborhoods page looks at: a run, a task, its samples, and the selection that a link can carry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from ..moments import get_moments
from ..neighborhoods import Neighborhood, maps_stamp, measured_tasks
from ..pipeline import RunView
from ..samples import ALL_DOMAINS, Answers, get_answers, outcomes, row_domains
from ..selected import pack, unpack
from ..types import Dataset, RunConfig
from .cached import read_neighborhood
from .runs import pick_run

END = "the end of training"


@dataclass(frozen=True)
class Look:
    """One run on the samples of one task, as they are shown.

    Attributes:
        view: The run.
        task: Whose samples.
        domain: Of which domain, or `samples.ALL_DOMAINS`.
        moment: What stands for after; empty is the end of training.
        k: Neighbours a sample.
        stamp: When the maps were drawn, 0 if they were not.
        hood: Graphs and maps.
        names: Class of each sample.
        root: Cache folder.
    """

    view: RunView
    task: str
    domain: str
    moment: str
    k: int
    stamp: float
    hood: Neighborhood
    names: Sequence[str]
    root: Path

    @property
    def data(self) -> Dataset:
        """The samples."""
        return self.hood.data

    @property
    def kept(self) -> np.ndarray:
        """Each sample's share of neighbours kept."""
        return self.hood.kept

    @property
    def place(self) -> tuple[str, str, str, Path, str]:
        """What names the maps: run, task, domain, cache folder, moment."""
        return self.view.run_id, self.task, self.domain, self.root, self.moment

    @property
    def key(self) -> str:
        """Names what is shown, for controls that must not outlive it."""
        return f"{self.view.run_id}.{self.task}.{self.domain}.{self.moment}"

    def answers(self) -> Answers | None:
        """Returns what the models said; None at a moment between, where nobody asked them."""
        return None if self.moment else get_answers(self.view.run_id, self.task, self.domain, self.root)

    def groupings(self) -> Mapping[str, Sequence[str]]:
        """Returns what samples can be grouped by beside their class, by name."""
        found: dict[str, Sequence[str]] = {}
        answers = self.answers()
        if answers is not None:
            found["correctness"] = outcomes(answers, np.asarray(self.data.labels)).tolist()
        if self.domain == ALL_DOMAINS:
            found["domain"] = row_domains(self.task, self.domain, self.root).tolist()
        return found


def choose(root: Path) -> Look | None:
    """Draws the choice of run, task, domain, moment and k, all of it in the URL; None, and words on what to do, if there is no run."""
    view = pick_run(root)
    if view is None:
        return None
    tasks = measured_tasks(view.config)
    columns = st.columns([1, 1, 1, 1.4])
    task = columns[0].selectbox("Task", list(tasks), key="task", bind="query-params", help="The downstream task first, then the held-out tasks.")
    about = "The first domain of a task is the in-distribution one."
    domains = [*tasks[task], *([ALL_DOMAINS] if len(tasks[task]) > 1 else [])]
    domain = columns[1].selectbox("Domain", domains, key="domain", bind="query-params", help=about)
    moment = _choose_moment(columns[2], view, task, root)
    k = _choose_k(columns[3], _count(view, task, domain, tasks))
    place = (view.run_id, task, domain)
    stamp = maps_stamp(*place, root, moment)
    hood = read_neighborhood(*place, k, moment, stamp, root)
    names = [hood.data.class_names[int(label)] for label in hood.data.labels]
    return Look(view, task, domain, moment, k, stamp, hood, names, root)


def _choose_moment(column, view: RunView, task: str, root: Path) -> str:
    """Draws the choice of what stands for after; only the trained task's features are kept on the way."""
    moments = [row["moment"] for row in get_moments(view.run_id, root)] if task == view.config.dataset else []
    about = "Steps of the training, or models between start and end (alpha). Kept for the task that was trained on."
    chosen = column.selectbox("After", [END, *moments], key="moment", bind="query-params", help=about, disabled=not moments)
    return "" if chosen in (None, END) else chosen


def _choose_k(column, n: int) -> int:
    high = min(50, n - 1)
    meaning = "How many nearest neighbours of a sample are looked at. Kept = in the list both before and after."
    return column.slider("Neighbours (k)", 5, high, min(10, high), key="k", bind="query-params", help=meaning) if high > 5 else max(1, high)


def _count(view: RunView, task: str, domain: str, tasks: Mapping[str, Sequence[str]]) -> int:
    """Returns how many samples there are, from the scores; 51 where they do not say."""
    counts = {score.domain: score.n for score in view.record.scores if score.dataset == task and score.metric == "zs_accuracy"}
    wanted = tasks[task] if domain == ALL_DOMAINS else [domain]
    return sum(counts.get(name, 0) for name in wanted) or 51


# --- the selection ----------------------------------------------------------------------------------------------------


def selection(look: Look) -> list[int]:
    """Returns the selected samples: from the lasso or the link; another run of the same samples keeps them."""
    scope = (look.task, look.domain, len(look.data))
    if st.session_state.get("selected.scope") != scope:
        letters = st.query_params.get("selected", "") if "selected.scope" not in st.session_state else ""
        _keep(unpack(letters, len(look.data)), scope)
    return st.session_state["selected.ids"]


def select(ids: Sequence[int], look: Look) -> None:
    """Makes samples the selection, in the session and in the URL."""
    _keep(sorted(set(ids)), (look.task, look.domain, len(look.data)))


def _keep(ids: list[int], scope: tuple[str, str, int]) -> None:
    st.session_state["selected.scope"], st.session_state["selected.ids"] = scope, ids
    letters = pack(ids, scope[2])
    if letters:
        st.query_params["selected"] = letters
    else:
        st.query_params.pop("selected", None)


def is_unmoved(config: RunConfig) -> bool:
    """Returns whether a run leaves the image tower as it was."""
    from ..methods import METHODS

    method = METHODS.get(config.method)
    return method is not None and method.trains == "none"
