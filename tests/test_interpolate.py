"""WiSE-FT: exact ends, a straight line between, and nothing averaged that cannot be."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustft.heads import Classifier
from robustft.interpolate import interpolate
from robustft.types import UserError


def states(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(seed)
    made = [{"w": torch.randn(4, 3), "scale": torch.randn(()), "h": torch.randn(5).half(), "seen": torch.randint(99, ()), "on": torch.rand(3) > 0.5}]
    made.append({name: torch.rand_like(value) if value.is_floating_point() else value.clone().logical_not().to(value.dtype) for name, value in made[0].items()})
    return made[0], made[1]


@given(seed=st.integers(0, 1000))
def test_ends_are_exact_to_the_bit(seed: int) -> None:
    theta_0, theta_1 = states(seed)
    start, end = interpolate(theta_0, theta_1, 0.0), interpolate(theta_0, theta_1, 1.0)
    assert all(torch.equal(start[name], theta_0[name]) for name in ("w", "scale", "h"))
    assert all(torch.equal(end[name], theta_1[name]) and end[name].dtype == theta_1[name].dtype for name in theta_1)


def test_ends_of_a_classifier_are_exact(tiny_classifier: Classifier) -> None:
    other = copy.deepcopy(tiny_classifier)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    between, images = copy.deepcopy(other), torch.randn(4, 3, 8, 8)
    for alpha, model in ((0.0, tiny_classifier), (1.0, other)):
        between.load_state_dict(interpolate(tiny_classifier.state_dict(), other.state_dict(), alpha))
        assert torch.equal(between(images), model(images))


@given(seed=st.integers(0, 1000), alpha=st.floats(0, 1))
def test_linear_model_averages_its_logits(seed: int, alpha: float) -> None:
    torch.manual_seed(seed)
    zero, one, between = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(6, 3)
    between.load_state_dict(interpolate(zero.state_dict(), one.state_dict(), alpha))
    x = torch.randn(5, 6)
    torch.testing.assert_close(between(x), (1 - alpha) * zero(x) + alpha * one(x), atol=1e-5, rtol=1e-5)


@given(seed=st.integers(0, 1000), alpha=st.floats(0, 1))
def test_integers_and_booleans_come_from_the_end(seed: int, alpha: float) -> None:
    theta_0, theta_1 = states(seed)
    middle = interpolate(theta_0, theta_1, alpha)
    for name in ("seen", "on"):
        assert torch.equal(middle[name], theta_1[name]) and middle[name].dtype == theta_1[name].dtype
    assert middle["h"].dtype == torch.float16


def test_arguments_are_left_alone() -> None:
    theta_0, theta_1 = states(0)
    kept = copy.deepcopy((theta_0, theta_1))
    for alpha in (0.0, 0.5, 1.0):
        for value in interpolate(theta_0, theta_1, alpha).values():
            value.zero_()
    for state, before in zip((theta_0, theta_1), kept, strict=True):
        assert all(torch.equal(state[name], before[name]) for name in state)


@pytest.mark.parametrize("missing", [0, 1])
def test_another_architecture_is_refused(missing: int) -> None:
    pair = states(0)
    del pair[missing]["w"]
    with pytest.raises(UserError, match="'w'"):
        interpolate(*pair, 0.5)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_another_shape_is_refused(alpha: float) -> None:
    theta_0, theta_1 = states(0)
    with pytest.raises(UserError, match=r"'w' has shape \(4, 3\) .* \(3, 4\)"):
        interpolate(theta_0, theta_1 | {"w": torch.zeros(3, 4)}, alpha)


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan"), float("inf")])
def test_alpha_outside_is_refused(alpha: float) -> None:
    with pytest.raises(UserError, match="alpha = "):
        interpolate(*states(0), alpha)
