"""What trains: a law for every entry, and LoRA against W0 + (alpha / r) B A done by hand, attention included."""

import copy
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustft.backbones.glyphclip import glyphclip
from robustft.encoder import Encoder
from robustft.heads import Classifier, Head
from robustft.interpolate import interpolate
from robustft.registry import discover
from robustft.tuning.lora import finish, lora, target_layers
from robustft.types import UserError

RANK, ALPHA = 3, 6.0
TOWERS = ["linear", "attention"]


class LinearTower(nn.Module):
    """Two linear layers inside, as timm and open_clip name them, and a projection to the embedding outside."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 6, bias=False), nn.LayerNorm(6))
        self.head = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images))


class ConvTower(nn.Module):
    """A tower with nothing linear in its trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images).mean((2, 3)))


def start_of(kind: str) -> Classifier:
    """A frozen classifier on a small tower; ``attention`` is open_clip's own vision transformer of two blocks."""
    torch.manual_seed(0)
    shape = {"image_size": 8, "patch_size": 4, "width": 16, "layers": 2, "heads": 2, "mlp_ratio": 2, "output_dim": 5}
    tower = {"linear": LinearTower, "attention": lambda: open_clip.model.VisionTransformer(**shape), "conv": ConvTower}[kind]()
    return Classifier(Encoder(tower), Head(torch.randn(4, 5))).eval().requires_grad_(False)


def adapted(kind: str, *, seed: int = 0, has_moved: bool = False) -> Classifier:
    """The same with LoRA, as it begins, or with B off zero and the head moved."""
    classifier = start_of(kind)
    lora(classifier, seed, rank=RANK, lora_alpha=ALPHA)
    if has_moved:
        draw = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for weight in classifier.parameters():
                if weight.requires_grad:
                    weight.add_(0.2 * torch.randn(weight.shape, generator=draw))
    return classifier


def images_of(n: int = 5) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def is_attention(start: Classifier, name: str) -> bool:
    return isinstance(start.get_submodule(name), nn.MultiheadAttention)


def by_hand(kind: str, moved: Classifier, share: float = 1.0) -> dict[str, Tensor]:
    """Starting weights plus ``share`` of all that was learned, written from the equation: (alpha / r) B A, and the head."""
    start, learned = start_of(kind), moved.state_dict()
    weights = dict(start.state_dict())
    for key in [key for key in learned if ".lora_A." in key]:
        layer = key.split(".lora_A.")[0].replace(".base_layer", "")
        name = f"{layer}.in_proj_weight" if is_attention(start, layer) else f"{layer}.weight"
        weights[name] = weights[name] + share * (ALPHA / RANK) * learned[key.replace("lora_A", "lora_B")] @ learned[key]
    for name in ("head.weight", "head.bias"):
        weights[name] = (1 - share) * weights[name] + share * learned[name]
    return weights


def loaded(kind: str, weights: dict[str, Tensor]) -> Classifier:
    classifier = start_of(kind)
    classifier.load_state_dict(weights)
    return classifier


def trained_names(classifier: nn.Module) -> set[str]:
    return {name for name, weight in classifier.named_parameters() if weight.requires_grad}


# --- every entry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("name", sorted(discover("tuning")))
def test_entry_leaves_the_answers_and_something_to_train(name: str, kind: str) -> None:
    entry, classifier, images = discover("tuning")[name], start_of(kind), images_of()
    entry.function(classifier, 3, **{p.name: p.default for p in entry.params})
    assert trained_names(classifier)
    torch.testing.assert_close(classifier(images), start_of(kind)(images), atol=1e-6, rtol=0)
    # A step by the gradient of any loss reaches all that is to be trained.
    classifier(images).logsumexp(1).sum().backward()
    assert all((weight.grad is not None) == weight.requires_grad for weight in classifier.parameters())


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("name", sorted(discover("tuning")))
def test_entry_ends_under_the_names_that_it_began_with(name: str, kind: str) -> None:
    entry, classifier, images = discover("tuning")[name], start_of(kind), images_of()
    shapes = {key: value.shape for key, value in classifier.state_dict().items()}
    entry.function(classifier, 3, **{p.name: p.default for p in entry.params})
    with torch.no_grad():
        for weight in classifier.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
    expected = classifier(images)
    if entry.declares("finish"):
        entry.declares("finish")(classifier)
    assert {key: value.shape for key, value in classifier.state_dict().items()} == shapes
    torch.testing.assert_close(classifier(images), expected, atol=1e-4, rtol=1e-4)


def test_full_and_frozen_head_do_what_they_say(tiny_classifier: Classifier) -> None:
    for name, expected in (("full", {"encoder", "head"}), ("frozen_head", {"encoder"})):
        classifier = copy.deepcopy(tiny_classifier).requires_grad_(False)
        discover("tuning")[name].function(classifier, 0)
        assert trained_names(classifier) == {key for key, _ in classifier.named_parameters() if key.split(".")[0] in expected}


# --- LoRA -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TOWERS)
def test_only_additions_and_head_train(kind: str) -> None:
    names = trained_names(adapted(kind))
    assert {name for name in names if "lora_" not in name} == {"head.weight", "head.bias"}
    layers = {name.split(".lora_")[0].replace(".base_layer", "").removeprefix("encoder.visual.") for name in names if "lora_" in name}
    blocks = [f"transformer.resblocks.{i}." for i in range(2)]
    expected = {"linear": {"trunk.1", "trunk.3"}, "attention": {b + part for b in blocks for part in ("attn", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")}}
    assert layers == expected[kind]
    assert {name.split(".lora_")[1] for name in names if "lora_" in name} == {"A.default.weight", "B.default.weight"}


@pytest.mark.parametrize("kind", TOWERS)
def test_it_begins_as_the_start(kind: str) -> None:
    images = images_of()
    torch.testing.assert_close(adapted(kind)(images), start_of(kind)(images), atol=1e-6, rtol=0)
    for name, weight in adapted(kind).named_parameters():
        assert "lora_B" not in name or not weight.any()
        assert "lora_A" not in name or weight.std() > 0


@pytest.mark.parametrize("kind", TOWERS)
def test_answers_are_those_of_the_equation(kind: str) -> None:
    moved, images = adapted(kind, has_moved=True), images_of()
    expected = loaded(kind, by_hand(kind, moved))(images)
    assert not torch.allclose(expected, start_of(kind)(images), atol=0.1)
    torch.testing.assert_close(moved(images), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", TOWERS)
def test_finished_weights_answer_alike_under_their_old_names(kind: str) -> None:
    moved, images = adapted(kind, has_moved=True), images_of()
    expected = moved(images)
    finish(moved)
    assert moved.state_dict().keys() == start_of(kind).state_dict().keys()
    assert [type(module) for module in moved.modules()] == [type(module) for module in start_of(kind).modules()]
    torch.testing.assert_close(moved(images), expected, atol=1e-5, rtol=1e-5)
    again = start_of(kind)
    again.load_state_dict(moved.state_dict())
    torch.testing.assert_close(again(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", TOWERS)
def test_finished_weights_are_the_equation(kind: str) -> None:
    moved = adapted(kind, has_moved=True)
    expected = by_hand(kind, moved)
    finish(moved)
    for name, value in moved.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5, msg=lambda words, name=name: f"{name}: {words}")


@pytest.mark.parametrize("kind", TOWERS)
@given(alpha=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]))
def test_interpolating_the_merged_weights_scales_b_a(kind: str, alpha: float) -> None:
    """Interpolating A and B apart would give alpha squared."""
    moved = adapted(kind, has_moved=True)
    expected = by_hand(kind, moved, alpha)
    finish(moved)
    between = interpolate(start_of(kind).state_dict(), moved.state_dict(), alpha)
    for name, value in between.items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5, msg=lambda words, name=name: f"{name}: {words}")


def test_query_key_and_value_each_get_a_gradient() -> None:
    classifier = adapted("attention", has_moved=True)
    classifier(images_of()).logsumexp(1).sum().backward()
    for block in classifier.encoder.visual.transformer.resblocks:
        b = block.attn.lora_B["default"].weight
        assert b.shape == (48, RANK) and b.grad is not None
        assert all(part.abs().max() > 1e-6 for part in b.grad.split(16))
        assert block.attn.base_layer.out_proj.lora_B["default"].weight.grad.abs().max() > 1e-6


def test_gradient_of_the_attention_is_that_of_the_weights() -> None:
    """By the chain rule the gradient of B is (alpha / r) G A^T, with G that of the whole weight."""
    moved, images = adapted("attention", has_moved=True), images_of()
    whole = loaded("attention", by_hand("attention", moved)).requires_grad_(True)
    for classifier in (moved, whole):
        classifier(images).logsumexp(1).sum().backward()
    for mine, theirs in zip(moved.encoder.visual.transformer.resblocks, whole.encoder.visual.transformer.resblocks, strict=True):
        for layer, gradient in ((mine.attn, theirs.attn.in_proj_weight.grad), (mine.attn.base_layer.out_proj, theirs.attn.out_proj.weight.grad)):
            expected = ALPHA / RANK * gradient @ layer.lora_A["default"].weight.T
            torch.testing.assert_close(layer.lora_B["default"].weight.grad, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", TOWERS)
def test_frozen_weights_stay_to_the_last_digits_however_often_the_tower_runs(kind: str) -> None:
    moved, start, images = adapted(kind, has_moved=True), start_of(kind).state_dict(), images_of()
    for _ in range(100):  # attention adds and subtracts B A at every pass
        moved(images)
    after = {key.replace(".base_layer", ""): value for key, value in moved.state_dict().items() if "lora_" not in key and not key.startswith("head.")}
    for name, value in after.items():
        torch.testing.assert_close(value, start[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", TOWERS)
def test_seed_decides_a_and_nothing_else_is_drawn(kind: str) -> None:
    def drawn(seed: int) -> list[Tensor]:
        return [weight for name, weight in adapted(kind, seed=seed).named_parameters() if "lora_A" in name]

    assert all(torch.equal(a, b) for a, b in zip(drawn(1), drawn(1), strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(drawn(1), drawn(2), strict=True))
    classifier = start_of(kind)
    before = torch.get_rng_state()
    lora(classifier, 9)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("rank", "alpha"), [(1, 0.5), (8, 16.0), (200, 3.0)])
def test_rank_and_scale_are_those_asked_for(rank: int, alpha: float) -> None:
    classifier = start_of("linear")
    lora(classifier, 0, rank=rank, lora_alpha=alpha)
    layer: Any = classifier.encoder.visual.trunk[1]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.shape == (rank, 192) and b.shape == (8, rank)
    torch.nn.init.normal_(b)
    x = torch.randn(2, 192)
    torch.testing.assert_close(layer(x) - layer.base_layer(x), alpha / rank * x @ a.T @ b.T, atol=1e-4, rtol=1e-4)


def test_tower_without_linear_layers_is_refused() -> None:
    with pytest.raises(UserError, match=r"^the tower ConvTower has no linear layers in its blocks, .* choose another method\.$"):
        lora(start_of("conv"), 0)


# --- the bundled model ------------------------------------------------------------------------------------------------


def test_layers_of_the_bundled_model_are_its_attention_and_mlps() -> None:
    names = target_layers(glyphclip().encoder.visual)
    kinds = {".".join(name.split(".")[-2:]) for name in names}
    assert kinds == {"xca.qkv", "xca.proj", "mlp.fc1", "mlp.fc2"} and all(name.startswith("trunk.stages.") for name in names)
    assert len(names) == len(set(names)) == 30 and sum("xca" in name for name in names) == 6


def test_attention_of_the_bundled_model_gets_a_gradient() -> None:
    backbone = glyphclip()
    classifier = Classifier(copy.deepcopy(backbone.encoder), Head(torch.randn(4, 128, generator=torch.Generator().manual_seed(0)))).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before, names = classifier(images), set(classifier.state_dict())
    lora(classifier.requires_grad_(False), 0)
    torch.testing.assert_close(classifier(images), before, atol=1e-6, rtol=0)
    classifier(images).logsumexp(1).sum().backward()
    gradients = {name: weight.grad for name, weight in classifier.named_parameters() if "lora_B" in name}
    assert len(gradients) == 30 and all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())
    with torch.no_grad():
        for name, weight in classifier.named_parameters():
            if "lora_B" in name:
                weight.add_(0.01)
    moved = classifier(images)
    assert not torch.allclose(moved, before, atol=1e-2)
    finish(classifier)
    assert set(classifier.state_dict()) == names
    torch.testing.assert_close(classifier(images), moved, atol=1e-4, rtol=1e-4)
