"""Values that hypothesis draws: whatever a person may ask for."""

from typing import Any

from hypothesis import strategies as st

from robustft.methods import METHODS, method_params
from robustft.registry import Param, discover


def allowed_values(param: Param) -> st.SearchStrategy[Any]:
    """Everything that a parameter accepts, in its own type."""
    if param.choices:
        return st.sampled_from(param.choices)
    if param.kind is bool:
        return st.booleans()
    numbers = st.integers(int(param.low), int(param.high)) if param.kind is int else st.floats(param.low, param.high)
    return st.none() | numbers if param.is_optional else numbers


# Read once, outside of any draw: the shape hook draws random numbers of its own, which hypothesis dislikes.
PARAMS = {name: method_params(name) for name in sorted(METHODS)}
TASKS = sorted(discover("datasets"))


@st.composite
def run_requests(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments that `make_config` accepts: some options given, held-out tasks in any order or left open."""
    dataset, method = draw(st.sampled_from(TASKS)), draw(st.sampled_from(sorted(PARAMS)))
    options = {p.name: draw(allowed_values(p)) for p in PARAMS[method] if draw(st.booleans())}
    others = [name for name in TASKS if name != dataset]
    held_out = draw(st.none() | st.lists(st.sampled_from(others), unique=True) | st.permutations(others))
    device = draw(st.sampled_from(["auto", "cpu", "cuda", "cuda:3"]))
    seed = draw(st.integers(0, 2**31 - 1))
    named = {"model": "glyphclip", "dataset": dataset, "method": method, "seed": seed, "device": device, "options": options, "held_out": held_out}
    return named | {"curve": draw(st.booleans())}
