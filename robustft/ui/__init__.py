"""The only library rooms that know Streamlit: the frame of every page, controls, cached reading, errors as boxes."""

from .cached import clear_features, free_gb, read_cache_use, read_devices, read_neighborhood, read_task
from .charts import chart, table
from .controls import control_value, param_control
from .frame import LIVE_SECONDS, PAGES, frame, is_presenting, link, live, shown_pages
from .runs import STATE_ICONS, STATE_SIGNS, finished, label_of, pick_run, progress_words, share_done, state_badge, state_word
from .words import duration, errors_as_boxes, plain, shown, size, without_paths, words_of

__all__ = [
    "LIVE_SECONDS",
    "PAGES",
    "STATE_ICONS",
    "STATE_SIGNS",
    "chart",
    "clear_features",
    "control_value",
    "duration",
    "errors_as_boxes",
    "finished",
    "frame",
    "free_gb",
    "is_presenting",
    "label_of",
    "link",
    "live",
    "param_control",
    "pick_run",
    "plain",
    "progress_words",
    "read_cache_use",
    "read_devices",
    "read_neighborhood",
    "read_task",
    "share_done",
    "shown",
    "shown_pages",
    "size",
    "state_badge",
    "state_word",
    "table",
    "without_paths",
    "words_of",
]
