"""What a page keeps in its address, so that a pasted link shows the same: choices by their own names, not by what is shown."""

from collections.abc import Sequence

import streamlit as st


def asked_for(name: str) -> list[str]:
    """Returns what the address lists under a name, as ``?runs=a,b``; it may be nonsense."""
    return [word for word in st.query_params.get(name, "").split(",") if word]


def remember(name: str, value: str | None) -> None:
    """Writes a choice into the address, or takes it out where it is the usual one."""
    if value is None:
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != value:
        st.query_params[name] = value


def restore_one(key: str, name: str, allowed: Sequence[str], usual: str) -> None:
    """Sets a control of one choice before it is drawn: to what it was, else to what the address asks for, else to the usual.

    Args:
        key: Of the control in the session state.
        name: In the address.
        allowed: What can be chosen.
        usual: Chosen where nobody chose.
    """
    if st.session_state.get(key) not in allowed:
        asked = next(iter(asked_for(name)), "")
        st.session_state[key] = asked if asked in allowed else usual


def restore_several(key: str, name: str, allowed: Sequence[str], usual: Sequence[str]) -> None:
    """Does the same for a control of several choices; what cannot be chosen any more is dropped."""
    if key in st.session_state:
        st.session_state[key] = [word for word in st.session_state[key] if word in allowed]
    else:
        asked = asked_for(name)
        st.session_state[key] = [word for word in allowed if word in asked] or list(usual)
