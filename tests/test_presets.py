"""Presets are rows over methods: each can be filled in, is told apart, and an edit makes it nobody's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import PARAMS, allowed_values

from robustft.configs import make_config
from robustft.listing import rows_of
from robustft.methods import METHODS, check_together, method_params, resolve_options
from robustft.presets import PRESETS, find_preset, preset_of
from robustft.types import UserError

WHOLE = {name: preset.resolved() for name, preset in PRESETS.items()}  # outside of any draw, as in strategies.py


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_a_method_with_known_settings(name: str) -> None:
    preset = find_preset(name)
    assert preset.method in METHODS and preset.title and preset.note.endswith(".") and preset.source
    assert set(preset.options) <= {p.name for p in method_params(preset.method)}
    assert preset_of(preset.method, preset.resolved()) == name
    assert make_config("glyphclip", "food", preset.method, options=preset.options).options == preset.resolved()
    assert check_together(preset.method, preset.resolved(), 48) == []


def test_presets_hold_the_published_figures() -> None:
    """Of the sources that each preset names."""
    assert (PRESETS["ldifs_paper"].resolved()["lr"], PRESETS["ldifs_paper"].resolved()["reg_weight"]) == (1e-5, 10.0)
    assert (PRESETS["wise_ft_paper"].resolved()["lr"], PRESETS["wise_ft_paper"].resolved()["alpha"]) == (3e-5, 0.5)
    assert (PRESETS["flyp_paper"].resolved()["lr"], PRESETS["flyp_paper"].resolved()["batch_size"]) == (1e-5, 512)
    assert (PRESETS["clipood_paper"].resolved()["margin"], PRESETS["clipood_paper"].resolved()["beta"]) == (0.3, 0.5)
    assert PRESETS["l2_sp_paper"].resolved()["reg_weight"] == 0.5
    assert (PRESETS["proxy_fda_paper"].resolved()["proxy_share"], PRESETS["fda_paper"].resolved()["sampler"]) == (0.4, "hard_classes")


@pytest.mark.parametrize("name", PRESETS)
@given(data=st.data())
def test_an_edited_preset_is_custom(name: str, data: st.DataObject) -> None:
    preset = find_preset(name)
    param, whole = data.draw(st.sampled_from(PARAMS[preset.method])), WHOLE[name]
    value = data.draw(allowed_values(param).filter(lambda v: v != whole[param.name]))
    assert preset_of(preset.method, whole | {param.name: value}) == "custom"


@pytest.mark.parametrize("method", METHODS)
def test_a_method_as_it_stands_is_its_defaults(method: str) -> None:
    assert preset_of(method, resolve_options(method, {})) == "defaults"


def test_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="no preset 'ldfis'; choose one of quick_look, ldifs_paper"):
        find_preset("ldfis")


def test_every_row_is_listed(tmp_path) -> None:
    methods, presets = rows_of("methods", tmp_path), rows_of("presets", tmp_path)
    assert [row["name"] for row in methods] == list(METHODS) and [row["name"] for row in presets] == list(PRESETS)
    for row in methods:
        assert {p["name"] for p in row["parameters"]} == set(resolve_options(row["name"], {}))
        assert all(p["source"] and p["help"] and p["allowed"] for p in row["parameters"])


# --- settings that do not go together ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fda", "proxy_fda"])
def test_more_neighbors_than_a_batch_has_is_refused(method: str) -> None:
    with pytest.raises(UserError, match="n_neighbors = 31 is not allowed with batch_size = 32; give at most 30"):
        check_together(method, resolve_options(method, {"n_neighbors": 31, "batch_size": 32}), 48)


def test_neighbors_inside_a_class_are_warned_of() -> None:
    # 64 images: 16 classes x 4 of 48, and 10 x 6 of 10; an image meets 3 or 5 others of its class.
    for n_neighbors, n_classes, is_warned in ((3, 48, True), (4, 48, False), (5, 10, True), (6, 10, False)):
        warnings = check_together("fda", resolve_options("fda", {"n_neighbors": n_neighbors}), n_classes)
        assert bool(warnings) == is_warned, (n_neighbors, n_classes)
        assert all("neighbourhoods stay inside a class" in warning for warning in warnings)


@pytest.mark.parametrize("method", ["ft", "lora"])
def test_a_task_of_one_class_is_refused(method: str) -> None:
    with pytest.raises(UserError, match="1 class, and a classifier needs two"):
        check_together(method, resolve_options(method, {}), 1)
