"""The form of a method on Launch: its card, its settings, presets, seed and device."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from .. import methods, presets
from ..registry import Param
from .cached import read_devices
from .controls import param_control
from .launching import forget_source, settings_of

DEFAULT_METHOD = "ft"


def title_of(name: str) -> str:
    """Names a method as a person knows it."""
    return methods.METHODS[name].title


def ask_method() -> tuple[str, dict[str, Any]]:
    """Draws the choice of one method with its card, settings and presets; returns its name and what the fields hold."""
    _restore_preset()
    preset_place = st.container()
    names = list(methods.METHODS)
    name = st.pills("Method", names, default=DEFAULT_METHOD, required=True, format_func=title_of, key="launch.method", bind="query-params")
    name = name or DEFAULT_METHOD
    draw_method(methods.METHODS[name])
    params = list(methods.method_params(name))
    options: dict[str, Any] = {}
    if not params:
        st.markdown("This method trains nothing: there is nothing to set.")
    own = [param for param in params if param.source != "loop"]
    if own:
        st.markdown(f"**Settings of {title_of(name)}**")
        options |= draw_fields(own, name)
    if params:
        with st.expander("Training settings", expanded=not own):
            options |= draw_fields([param for param in params if param.source == "loop"], name)
    with preset_place:
        _draw_preset(name, options)
    return name, options


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


def draw_fields(params: Sequence[Param], prefix: str, across: int = 3) -> dict[str, Any]:
    """Draws the controls of some parameters, in rows; returns what they hold.

    Args:
        params: What is asked.
        prefix: Begins each control's key, as the method's name.
        across: Controls in a row.
    """
    values = {}
    for begin in range(0, len(params), across):
        for column, param in zip(st.columns(across), params[begin : begin + across], strict=False):
            with column:
                values[param.name] = param_control(param, f"{prefix}.{param.name}")
    return values


# --- device -----------------------------------------------------------------------------------------------------------


def ask_device() -> str:
    """Draws the choice of a device; one that a loaded config names stays in the list though it is not here."""
    known = ["auto", *(device.name for device in read_devices())]
    wanted = st.session_state.get("launch.device", "auto")
    names = [*known, *([wanted] if wanted not in known else [])]
    about = "Auto takes a GPU if there is one."
    return st.selectbox("Device", names, format_func=_name_device, key="launch.device", persist_state="session", help=about)


def _name_device(name: str) -> str:
    """Names a device with its free memory; Auto with what it would take."""
    there = {device.name: device for device in read_devices()}
    if name == "auto":
        first = next(iter(there.values()))
        return f"Auto: {first.title}, {first.free_gib:.0f} GB free"
    return f"{there[name].title} ({name}), {there[name].free_gib:.0f} GB free" if name in there else f"{name} (not on this machine)"


# --- presets ----------------------------------------------------------------------------------------------------------


def _apply_preset() -> None:
    """Sets method and fields to the chosen preset, or the fields to the method's defaults."""
    chosen = st.session_state["launch.preset"]
    forget_source()
    if chosen in presets.PRESETS:
        preset = presets.PRESETS[chosen]
        st.session_state["launch.method"] = preset.method
        st.session_state.update(settings_of(preset.method, preset.resolved()))
        st.query_params["launch.base"] = chosen
    elif chosen == "defaults":
        st.query_params.pop("launch.base", None)
        name = st.session_state.get("launch.method") or DEFAULT_METHOD
        st.session_state.update(settings_of(name, methods.resolve_options(name, {})))


def _restore_preset() -> None:
    """Goes back to the preset in the URL after a reload; what was edited since stands in the URL by itself."""
    base = st.query_params.get("launch.base", "")
    if base in presets.PRESETS and not st.session_state.setdefault("launch.is_restored", False):
        preset = presets.PRESETS[base]
        for key, value in settings_of(preset.method, preset.resolved()).items():
            if key not in st.query_params and key not in st.session_state:
                st.session_state[key] = value
    st.session_state["launch.is_restored"] = True


def _draw_preset(method: str, options: Mapping[str, Any]) -> None:
    """The choice of presets, which follows what the fields hold: settings of nobody's are Custom."""
    try:
        shown = presets.preset_of(method, methods.resolve_options(method, options))
    except ValueError:
        shown = "custom"
    titles = {"defaults": "Defaults of the method", **{name: preset.title for name, preset in presets.PRESETS.items()}, "custom": "Custom"}
    choices = [name for name in titles if name != "custom" or shown == "custom"]
    st.session_state["launch.preset"] = shown
    about = "Settings of a paper, or for a purpose."
    st.selectbox("Preset", choices, format_func=titles.__getitem__, key="launch.preset", on_change=_apply_preset, help=about)
    if shown in presets.PRESETS:
        preset = presets.PRESETS[shown]
        st.caption(f"{preset.note} Source: {preset.source}.")
