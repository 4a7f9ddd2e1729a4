"""The bundled model against open_clip's own factory and transform; text towers; heads; taps."""

import copy
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from robustft.backbones.glyphclip import WEIGHTS, glyphclip
from robustft.encoder import Backbone, Encoder, Preprocess, TextTower, hash_weights, load_clip, tap_modules
from robustft.features import extract
from robustft.heads import Classifier, Head, TextHead, plain_head, zero_shot_head
from robustft.types import Dataset, UserError

PROMPTS = ["pizza", "a picture of a cat", "handwritten seven"]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return glyphclip()


@pytest.fixture(scope="module")
def official() -> tuple[Any, Callable[[Image.Image], Tensor]]:
    """The same folder by open_clip's own factory, with its own transform."""
    level = logging.getLogger().level
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{WEIGHTS}")
    logging.getLogger().setLevel(level)
    return model.eval(), transform


def pixels(n: int, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    """Smooth random pictures, as resizing is judged on what pictures hold."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1) * 255).round().to(torch.uint8)


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@torch.no_grad()
def test_images_are_encoded_as_open_clip_does(backbone: Backbone, official: tuple[Any, Callable[[Image.Image], Tensor]]) -> None:
    model, transform = official
    images = pixels(6)
    theirs = model.encode_image(torch.stack([transform(picture(image)) for image in images]))
    torch.testing.assert_close(backbone.encoder(backbone.preprocess(images)), theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_text_is_encoded_as_open_clip_does(backbone: Backbone, official: tuple[Any, Callable[[Image.Image], Tensor]]) -> None:
    theirs = official[0].encode_text(open_clip.get_tokenizer(f"local-dir:{WEIGHTS}")(PROMPTS), normalize=True)
    ours = backbone.text(backbone.text.tokenize(PROMPTS))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(3))
    assert torch.equal(backbone.text.tokenize(PROMPTS), open_clip.get_tokenizer(f"local-dir:{WEIGHTS}")(PROMPTS))
    assert backbone.text.scale.item() == pytest.approx(official[0].logit_scale.exp().item())


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 128), (100, 150), (150, 101), (100, 151), (40, 40)])
def test_pictures_of_any_size_are_prepared_as_open_clip_does(
    height: int, width: int, backbone: Backbone, official: tuple[Any, Callable[[Image.Image], Tensor]]
) -> None:
    images = pixels(2, height, width)
    theirs = torch.stack([official[1](picture(image)) for image in images])
    ours = backbone.preprocess(images)
    assert ours.shape == theirs.shape
    # Pillow rounds to bytes between the steps of a resize; one byte is 1 / 255 / std, about 0.015.
    assert (ours - theirs).abs().mean() < 0.01 and (ours - theirs).abs().max() < 0.1


def test_weights_are_small_and_frozen(backbone: Backbone) -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 12e6
    assert not backbone.encoder.training and not any(p.requires_grad for p in backbone.encoder.parameters())
    assert backbone.encoder(backbone.preprocess(pixels(1))).requires_grad is False


def test_hash_depends_on_names_values_and_types(backbone: Backbone) -> None:
    assert glyphclip().weights_hash == backbone.weights_hash
    base = {"a": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    others = [{"b": base["a"], "n": base["n"]}, {**base, "a": torch.tensor([1.0, 2.5])}, {**base, "n": torch.tensor(4)}, {**base, "a": base["a"].double()}]
    assert len({hash_weights(state) for state in [base, *others]}) == 5
    assert hash_weights(dict(reversed(base.items()))) == hash_weights(base)


@pytest.mark.parametrize("kind", ["no folder", "no weights", "cut", "garbage", "empty"])
def test_model_without_its_weights_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    if kind != "no folder":
        folder.mkdir()
        shutil.copy(WEIGHTS / "open_clip_config.json", folder)
    whole = (WEIGHTS / "open_clip_model.safetensors").read_bytes()
    content = {"cut": whole[: len(whole) // 2], "garbage": b"x" * 1000, "empty": b""}
    if kind in content:
        (folder / "open_clip_model.safetensors").write_bytes(content[kind])
    with pytest.raises(UserError, match="weights of model 'lost' could not be loaded"):
        load_clip("lost", f"local-dir:{folder}")


# --- text towers ------------------------------------------------------------------------------------------------------


def test_text_tower_holds_no_image_tower(backbone: Backbone) -> None:
    whole, image, text = (sum(p.numel() for p in module.parameters()) for module in (backbone.clip, backbone.encoder, backbone.text))
    assert text == whole - image and not any("visual" in name for name in backbone.text.state_dict())
    assert not any(p.requires_grad for p in backbone.text.parameters())
    assert any(p.numel() for p in backbone.clip.visual.parameters()), "the model keeps its own"


def test_copy_of_a_text_tower_is_its_own(tiny_text: TextTower) -> None:
    tokens, twin = tiny_text.tokenize(["red", "blue"]), copy.deepcopy(tiny_text)
    before = tiny_text(tokens).clone()
    assert torch.equal(twin(tokens), before) and twin.tokenizer is tiny_text.tokenizer
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in tiny_text.parameters()}
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(torch.randn_like(p))
    assert torch.equal(tiny_text(tokens), before) and not torch.equal(twin(tokens), before)
    assert tiny_text.scale.item() == pytest.approx(math.exp(2.5)) != pytest.approx(twin.scale.item())
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in tiny_text.parameters()]


@pytest.mark.parametrize(("log_scale", "expected"), [(0.0, 1.0), (2.5, math.exp(2.5)), (math.log(100), 100.0), (5.0, 100.0), (50.0, 100.0)])
def test_scale_stops_at_a_hundred_and_can_come_back(log_scale: float, expected: float, tiny_text: TextTower) -> None:
    parameter = tiny_text.clip.logit_scale.requires_grad_(True)
    with torch.no_grad():
        parameter.fill_(log_scale)
    scale = tiny_text.scale
    assert scale.item() == pytest.approx(expected, rel=1e-5)
    scale.backward()
    # The gradient is that of exp at the value that is used: neither 0 beyond the bound nor beyond all bounds.
    assert parameter.grad is not None and parameter.grad.item() == pytest.approx(expected, rel=1e-5)


# --- heads ------------------------------------------------------------------------------------------------------------


def test_zero_shot_logits_are_cosines_times_the_scale(backbone: Backbone) -> None:
    names, templates = ("pizza", "cat", "moon"), ("{}", "a picture of {}")
    features = torch.randn(4, 128)
    logits = zero_shot_head(backbone.text, names, templates)(features)
    for i in range(4):
        for c, name in enumerate(names):
            embeddings = [backbone.text(backbone.text.tokenize([template.format(name)]))[0] for template in templates]
            direction = sum(e / e.norm() for e in embeddings) / len(templates)
            cosine = (features[i] @ direction) / (features[i].norm() * direction.norm())
            assert logits[i, c].item() == pytest.approx(backbone.text.scale.item() * cosine.item(), abs=1e-4)


NAMES, TEMPLATES = ("red", "blue", "dark green"), ("{}", "a {} sky", "so {}")


@pytest.fixture
def text_head(tiny_text: TextTower) -> TextHead:
    return TextHead(tiny_text, NAMES, TEMPLATES)


def drawing(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_text_head_begins_as_the_zero_shot_head(text_head: TextHead, tiny_text: TextTower) -> None:
    zero_shot, features = zero_shot_head(tiny_text, NAMES, TEMPLATES), torch.randn(4, 5)
    torch.testing.assert_close(text_head.class_weights(), zero_shot.weight.data, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(text_head(features), zero_shot(features), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text_head.logits(features, text_head.class_weights()), text_head(features))


def test_text_head_of_the_bundled_model_begins_as_its_zero_shot_head(backbone: Backbone) -> None:
    names, templates = ("pizza", "cat"), ("{}", "a picture of {}")
    with torch.no_grad():
        weights = TextHead(backbone.text, names, templates).class_weights()
    torch.testing.assert_close(weights, zero_shot_head(backbone.text, names, templates).weight.data, atol=1e-6, rtol=1e-6)


def test_text_head_has_a_tower_of_its_own(text_head: TextHead, tiny_text: TextTower) -> None:
    assert set(text_head.state_dict()) == {f"tower.{name}" for name in tiny_text.state_dict()}
    with torch.no_grad():
        text_head.tower.clip.letters.weight.mul_(-1)
    torch.testing.assert_close(text_head.class_weights(), -zero_shot_head(tiny_text, NAMES, TEMPLATES).weight.data)


@torch.no_grad()
def test_drawn_texts_are_those_of_the_classes(text_head: TextHead, tiny_text: TextTower) -> None:
    labels = torch.tensor([2, 0, 0, 1, 2, 1, 0, 0])
    texts = tiny_text.scale * torch.stack([tiny_text(tiny_text.tokenize([t.format(name) for t in TEMPLATES])) for name in NAMES])
    seen: list[set[int]] = [set(), set(), set()]
    for seed in range(30):
        for label, caption in zip(labels.tolist(), text_head.captions(labels, drawing(seed)), strict=True):
            (which,) = [i for i in range(3) if torch.allclose(caption, texts[label, i], atol=1e-5)]
            seen[label].add(which)
        for label, row in enumerate(text_head.class_weights(drawing(seed))):
            assert any(torch.allclose(row, text, atol=1e-5) for text in texts[label])
    assert seen == [{0, 1, 2}] * 3


@torch.no_grad()
def test_draws_depend_on_the_generator_alone(text_head: TextHead) -> None:
    labels = torch.arange(3).repeat(8)
    for ask in (lambda seed: text_head.captions(labels, drawing(seed)), lambda seed: text_head.class_weights(drawing(seed))):
        torch.rand(3)
        assert torch.equal(ask(4), ask(4)) and any(not torch.equal(ask(4), ask(seed)) for seed in range(4))
    assert torch.equal(text_head.class_weights(), text_head.class_weights()), "evaluation draws nothing"


@pytest.mark.parametrize("how", ["captions", "drawn classes", "classes"])
def test_training_a_text_head_reaches_text_tower_and_scale(how: str, text_head: TextHead) -> None:
    text_head.requires_grad_(True)
    labels, features = torch.tensor([0, 2, 1, 1]), torch.randn(4, 5, generator=drawing(0), requires_grad=True)
    if how == "captions":
        similarities = F.normalize(features, dim=-1) @ text_head.captions(labels, drawing(0)).T
        F.cross_entropy(similarities, torch.arange(4)).backward()
    else:
        weights = text_head.class_weights(drawing(0) if how == "drawn classes" else None)
        F.cross_entropy(text_head.logits(features, weights), labels).backward()
    gradients = {name: p.grad for name, p in text_head.named_parameters()}
    assert set(gradients) == {"tower.clip.letters.weight", "tower.clip.logit_scale"}
    assert all(g is not None and g.abs().max() > 1e-4 for g in [*gradients.values(), features.grad])


def test_text_head_learns_its_classes(text_head: TextHead) -> None:
    text_head.requires_grad_(True)
    features, labels = torch.randn(9, 5, generator=drawing(1)), torch.arange(3).repeat(3)
    features[3:] = features[:3].repeat(2, 1) + 0.1 * features[3:]
    optimizer = torch.optim.Adam(text_head.parameters(), 0.1)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(text_head(features), labels).backward()
        optimizer.step()
    assert (text_head(features).argmax(1) == labels).all()


@pytest.mark.parametrize("kind", ["text", "bias"])
def test_plain_head_answers_alike(kind: str, text_head: TextHead) -> None:
    head = text_head if kind == "text" else Head(torch.randn(3, 5), torch.randn(3))
    features = torch.randn(6, 5)
    plain = plain_head(head)
    assert isinstance(plain, Head) and set(plain.state_dict()) == {"weight", "bias"}
    torch.testing.assert_close(plain(features), head(features))
    with torch.no_grad():
        plain.weight.zero_()
    assert head.class_weights().abs().max() > 0


def test_features_are_those_of_a_plain_pass_and_the_mode_is_kept(tiny_classifier: Classifier) -> None:
    images = torch.randint(0, 255, (10, 3, 8, 8), dtype=torch.uint8)
    data = Dataset("tiny", "a", "val", images, torch.arange(10), ("x",), ("{}",), "")
    encoder = tiny_classifier.encoder.train()
    told: list[tuple[int, int]] = []
    found = extract(encoder, lambda x: x.float() / 255, data, batch_size=3, progress=lambda done, total: told.append((done, total)))
    assert encoder.training and told == [(3, 10), (6, 10), (9, 10), (10, 10)]
    with torch.no_grad():
        np.testing.assert_allclose(found.values, encoder.eval()(images.float() / 255), atol=1e-6)
    assert found.labels.tolist() == list(range(10))


# --- taps -------------------------------------------------------------------------------------------------------------


def transformer() -> nn.Module:
    """open_clip's own vision transformer, eight blocks, 2 x 2 patches and a class token."""
    torch.manual_seed(0)
    return open_clip.model.VisionTransformer(image_size=8, patch_size=4, width=16, layers=8, heads=2, mlp_ratio=2, output_dim=5).eval()


def encoders(name: str, tiny: Classifier) -> tuple[Encoder, Tensor, list[tuple[int, int]]]:
    """An encoder, images for it, and tokens by channels of each tap."""
    draw = torch.Generator().manual_seed(0)
    if name == "tiny":
        return tiny.encoder, torch.randn(3, 3, 8, 8, generator=draw), [(64, 6), (64, 6), (16, 6), (16, 6), (4, 6)]
    if name == "transformer":
        return Encoder(transformer()), torch.randn(3, 3, 8, 8, generator=draw), [(5, 16)] * 5
    return glyphclip().encoder, torch.randn(3, 3, 64, 64, generator=draw), [(256, 24), (256, 24), (64, 48), (16, 88), (4, 168)]


@pytest.mark.parametrize("name", ["tiny", "transformer", "glyphclip"])
@torch.no_grad()
def test_taps_come_with_the_features_of_a_plain_pass(name: str, tiny_classifier: Classifier) -> None:
    encoder, images, layout = encoders(name, tiny_classifier)
    features, taps = encoder.with_taps(images)
    assert torch.equal(features, encoder(images))
    assert [tuple(tap.shape[1:]) for tap in taps] == layout and all(len(tap) == len(images) for tap in taps)
    assert not any(module._forward_hooks for module in encoder.modules()), "hooks are left behind"


@pytest.mark.parametrize("name", ["tiny", "transformer", "glyphclip"])
@torch.no_grad()
def test_taps_of_permuted_images_are_permuted_taps(name: str, tiny_classifier: Classifier) -> None:
    # Guards against towers that put tokens first: there, images would be mixed without an error.
    encoder, images, _ = encoders(name, tiny_classifier)
    order = torch.tensor([2, 0, 1])
    for tap, permuted in zip(encoder.with_taps(images)[1], encoder.with_taps(images[order])[1], strict=True):
        torch.testing.assert_close(permuted, tap[order], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(permuted, tap)


@torch.no_grad()
def test_tokens_of_a_feature_map_are_its_places(tiny_classifier: Classifier) -> None:
    images = torch.randn(2, 3, 8, 8)
    stem = tiny_classifier.encoder.visual.stem(images)
    tokens = tiny_classifier.encoder.with_taps(images)[1][0]
    for y, x in ((0, 0), (0, 3), (5, 2)):
        torch.testing.assert_close(tokens[:, y * 8 + x], stem[:, :, y, x])


@torch.no_grad()
def test_taps_of_a_transformer_are_the_quarters_of_its_depth() -> None:
    visual, images = transformer(), torch.randn(2, 3, 8, 8)
    expected: list[Tensor] = []
    for module in (visual.ln_pre, *(visual.transformer.resblocks[i] for i in (1, 3, 5, 7))):
        module.register_forward_hook(lambda _m, _i, out: expected.append(out.clone()))
    _, taps = Encoder(visual).with_taps(images)
    assert all(torch.equal(a, b) for a, b in zip(taps, expected, strict=True))


def test_tower_without_depth_is_refused() -> None:
    with pytest.raises(UserError, match="Linear has no blocks or stages"):
        tap_modules(nn.Linear(2, 2))


def test_preprocessing_has_its_own_key() -> None:
    config = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "interpolation": "bicubic"}
    keys = {Preprocess({**config, **change}).key for change in ({}, {"size": 64}, {"mean": (0.5, 0.5, 0.4)}, {"interpolation": "bilinear"})}
    assert len(keys) == 4 and Preprocess({**config, "size": (32, 32)}).key in keys
