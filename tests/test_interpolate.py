"""WiSE-FT: exact ends, a straight line between, nothing averaged that cannot be, and statistics measured anew."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import TinyClip, spell
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustft import interpolate as interpolate_module
from robustft.encoder import Encoder, TextTower
from robustft.heads import Classifier, TextHead
from robustft.interpolate import interpolate, recompute_statistics
from robustft.types import TrainData, UserError


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


# --- statistics of normalisation --------------------------------------------------------------------------------------


class Norms(nn.Module):
    """Two normalised layers with dropout between them; images of 3 x 4 x 4 to 5 features."""

    def __init__(self, momentum: float = 0.3) -> None:
        super().__init__()
        self.conv, self.norm1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6, momentum=momentum)
        self.drop, self.linear, self.norm2 = nn.Dropout(0.5), nn.Linear(6, 5), nn.BatchNorm1d(5)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm2(self.linear(self.drop(self.norm1(self.conv(images)).relu().mean((2, 3)))))


def pictures(n: int, seed: int = 0) -> TrainData:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8, generator=draw)
    return TrainData(images, torch.arange(n) % 3, lambda pixels: pixels.float() / 100 - 1)


def norms(seed: int, data: TrainData) -> Norms:
    """A net whose statistics are those of its own activations on the images."""
    torch.manual_seed(seed)
    net = Norms().eval()
    recompute_statistics(net, data)
    return net


def between(data: TrainData, alpha: float = 0.5) -> Norms:
    net = Norms().eval()
    net.load_state_dict(interpolate(norms(1, data).state_dict(), norms(2, data).state_dict(), alpha))
    return net


def mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel, over all that is not the channel; unbiased, as PyTorch keeps it."""
    flat = x.transpose(0, 1).flatten(1)
    return flat.mean(1), flat.var(1, unbiased=True)


def test_statistics_are_measured_by_hand() -> None:
    """One batch: the first norm's numbers are those of its input, the second's those of its own, given the first."""
    data = pictures(64)
    net = between(data)
    averaged = copy.deepcopy(net.state_dict())
    assert recompute_statistics(net, data) is True
    with torch.no_grad():
        x = net.conv(data.inputs(torch.arange(64), torch.device("cpu")))
        y = F.batch_norm(x, None, None, net.norm1.weight, net.norm1.bias, training=True)
        second = net.linear(y.relu().mean((2, 3)))  # dropout is off
    for norm, seen, name in ((net.norm1, x, "norm1"), (net.norm2, second, "norm2")):
        mean, variance = mean_and_variance(seen)
        torch.testing.assert_close(norm.running_mean, mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(norm.running_var, variance, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(averaged[f"{name}.running_var"], variance, rtol=0.05), "averaged statistics fit no averaged weights"


def test_statistics_are_the_mean_over_whole_batches() -> None:
    """150 images are two batches of 64; each counts half, and the 22 that are left over do not count."""
    data = pictures(150)
    net, draws = between(data), []
    handle = net.conv.register_forward_hook(lambda _m, _i, out: draws.append(out))
    recompute_statistics(net, data)
    handle.remove()
    assert [len(out) for out in draws] == [64, 64] and net.norm1.num_batches_tracked == 2
    parts = [mean_and_variance(out) for out in draws]
    for found, column in zip((net.norm1.running_mean, net.norm1.running_var), zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack(column).mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("n", "batches"), [(10, [10]), (63, [63]), (64, [64]), (65, [64]), (64 * 5, [64] * 3)])
def test_statistics_look_at_no_more_than_they_say(n: int, batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpolate_module, "STATISTICS_BATCHES", 3)
    data, net, sizes = pictures(n), Norms().eval(), []
    net.conv.register_forward_hook(lambda _m, _i, out: sizes.append(len(out)))
    recompute_statistics(net, data)
    assert sizes == batches


def test_statistics_do_not_depend_on_the_order_of_the_images() -> None:
    """Tasks list their images class by class: batches of one class each would miss the spread between classes."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(64)
    images = (labels[:, None, None, None] * 60 + torch.randint(0, 20, (256, 3, 4, 4), generator=draw)).to(torch.uint8)
    data, found = TrainData(images, labels, lambda pixels: pixels.float() / 100 - 1), []
    for order in (torch.arange(256), torch.randperm(256, generator=draw)):
        torch.manual_seed(0)
        net = Norms().eval()
        recompute_statistics(net, replace(data, images=images[order], labels=labels[order]))
        found.append(net.norm1.running_var)
    torch.testing.assert_close(*found, rtol=0.2, atol=0)


def test_measuring_leaves_everything_else_alone() -> None:
    data = pictures(64)
    net = between(data)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    recompute_statistics(net, data)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"norm{i}.running_{kind}" for i in (1, 2) for kind in ("mean", "var")}
    assert (net.norm1.momentum, net.norm2.momentum) == (0.3, 0.1) and not any(module.training for module in net.modules())
    for norm in (net.norm1, net.norm2):
        assert norm.num_batches_tracked == 1 and norm.num_batches_tracked.dtype == torch.long
    assert all(p.grad is None for p in net.parameters())


def test_measuring_twice_is_measuring_once() -> None:
    data = pictures(200)
    once, twice = between(data), between(data)
    recompute_statistics(once, data)
    for _ in range(2):
        recompute_statistics(twice, data)
    assert all(torch.equal(value, twice.state_dict()[name]) for name, value in once.state_dict().items())


def test_answers_on_the_same_images_are_normalised_again() -> None:
    data = pictures(64)
    net, inputs = between(data), data.inputs(torch.arange(64), torch.device("cpu"))
    raw = net(inputs).var(0, unbiased=False)
    recompute_statistics(net, data)
    measured = net(inputs)
    expected = net.norm2.weight.square().mean() * 63 / 64
    assert (raw - expected).abs().max() > 0.05
    torch.testing.assert_close(measured.var(0, unbiased=False), net.norm2.weight.data.square() * 63 / 64, atol=0.02, rtol=0)


def test_net_without_statistics_is_left_alone() -> None:
    class Refuses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.BatchNorm1d(4, track_running_stats=False), nn.Dropout())

        def forward(self, images: Tensor) -> Tensor:
            raise AssertionError("there was nothing to look at")

    net = Refuses().eval()
    before = copy.deepcopy(net.state_dict())
    assert recompute_statistics(net, pictures(64)) is False
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()) and not any(m.training for m in net.modules())


# --- heads made of text -----------------------------------------------------------------------------------------------


@given(alpha=st.sampled_from([0.0, 0.3, 1.0]))
def test_both_towers_lie_between_and_the_head_is_built_anew(alpha: float) -> None:
    """Averaging two towers and building the head is not the average of two heads."""
    start, end = text_classifier(0), text_classifier(1)
    theta = interpolate(start.state_dict(), end.state_dict(), alpha)
    assert {"head.tower.clip.letters.weight", "head.tower.clip.logit_scale"} <= set(theta) and not any("tokens" in name for name in theta)
    for name, value in theta.items():
        torch.testing.assert_close(value, (1 - alpha) * start.state_dict()[name] + alpha * end.state_dict()[name], atol=1e-6, rtol=1e-6)
    middle = text_classifier(2)
    middle.load_state_dict(theta)
    images = torch.randn(3, 3, 8, 8)
    if alpha in (0, 1):
        assert torch.equal(middle(images), (end if alpha else start)(images))
    else:
        mixed = (1 - alpha) * start.head.class_weights() + alpha * end.head.class_weights()
        assert not torch.allclose(middle.head.class_weights(), mixed, atol=1e-2)


def text_classifier(seed: int) -> Classifier:
    torch.manual_seed(seed)
    tower = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    return Classifier(Encoder(tower), TextHead(TextTower(TinyClip(), spell), ("red", "blue"), ("{}", "a {} sky"))).eval()
