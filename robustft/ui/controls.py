"""Controls made from a parameter's own type, range and help."""

from typing import Any

import streamlit as st

from ..registry import Param
from .words import shown


def param_control(param: Param, key: str) -> Any:
    """Draws the control of one parameter from its type, range, default and help, and returns its value.

    What is typed stays in the URL, so that a reload keeps it.
    """
    is_cited = param.source and param.source != "loop"
    note = " ".join(
        filter(None, [param.help, f"Allowed: {param.allowed}.", f"Default: {shown(param.default)}.", f"Source: {param.source}" if is_cited else ""])
    )
    if param.choices:
        return st.selectbox(param.name, param.choices, index=param.choices.index(param.default), key=key, help=note, bind="query-params")
    if param.kind is bool:
        return st.toggle(param.name, value=param.default, key=key, help=note, bind="query-params")
    if param.kind is int:
        low, high = int(param.low or 0), int(param.high or 2**31)
        return st.number_input(param.name, low, high, param.default, step=1, key=key, help=note, bind="query-params")
    # Numbers that span decades, or may be left open, are typed: a stepper would round 1e-5 to nothing.
    return st.text_input(param.name, value=shown(param.default), key=key, help=note, bind="query-params")


def control_value(param: Param, value: Any) -> Any:
    """Returns what a parameter's control must hold to mean a value."""
    return value if param.choices or param.kind in (bool, int) else shown(value)
