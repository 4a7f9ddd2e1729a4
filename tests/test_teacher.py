"""The frozen start: it answers on the student's own view, or remembers each image's centre crop, and never learns."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robustft import teacher as teacher_module
from robustft.features import extract
from robustft.heads import Classifier, Head, zero_shot_head
from robustft.registry import Entry
from robustft.teacher import Teacher
from robustft.train import Trainer
from robustft.types import Batch, Dataset, TrainData, UserError

CPU = torch.device("cpu")
ROWS = torch.tensor([5, 70, 0, 5])


def listener(heard: list[Batch], *needs: str) -> Entry:
    """A regularizer that changes nothing and keeps what it is shown."""
    module = ModuleType("listener")
    vars(module)["NEEDS"] = frozenset(needs)

    def listen(batch: Batch) -> Tensor:
        heard.append(batch)
        return batch.features.sum() * 0

    return Entry("listener", listen, module, (), "", "")


def frozen(classifier: Classifier) -> Classifier:
    return classifier.eval().requires_grad_(False)


@pytest.fixture
def teacher(tiny_classifier: Classifier) -> Teacher:
    return Teacher(frozen(tiny_classifier), with_taps=True)


# --- online -----------------------------------------------------------------------------------------------------------


def test_answers_are_those_of_encoder_and_head(teacher: Teacher) -> None:
    images = torch.randn(4, 3, 8, 8)
    features, taps = teacher.model.encoder.with_taps(images)
    taught = teacher(ROWS, images)
    assert torch.equal(taught.features, features) and torch.equal(taught.logits, teacher.model.head(features))
    assert len(taught.taps) == 5 and all(torch.equal(a, b) for a, b in zip(taught.taps, taps, strict=True))
    assert Teacher(teacher.model)(ROWS, images).taps == ()


def test_student_and_teacher_see_the_same_view(make: Callable[..., Trainer]) -> None:
    heard: list[Batch] = []
    trainer = make(regularizer=listener(heard, "features_0", "logits_0", "taps"))
    next(trainer.steps())
    (batch,) = heard
    assert batch.features_0 is not None and batch.logits_0 is not None and batch.logits is not None
    assert torch.equal(batch.features, batch.features_0) and torch.equal(batch.logits, batch.logits_0)
    assert len(batch.taps_0) == 5 and all(torch.equal(a, b) for a, b in zip(batch.taps, batch.taps_0, strict=True))


def test_teacher_stays_at_the_start(make: Callable[..., Trainer], tiny_classifier: Classifier) -> None:
    heard: list[Batch] = []
    trainer = make(regularizer=listener(heard, "features_0", "logits_0"))
    list(trainer.steps())
    start = trainer.teacher.model
    assert all(torch.equal(value, tiny_classifier.state_dict()[name]) for name, value in start.state_dict().items())
    for batch in heard:
        assert batch.features_0 is not None and batch.logits_0 is not None
        assert torch.equal(batch.logits_0, tiny_classifier.head(batch.features_0))
    assert not torch.equal(heard[-1].features, heard[-1].features_0)


def test_teacher_has_the_zero_shot_head_whatever_the_student_begins_with(make: Callable[..., Trainer], tiny_classifier: Classifier) -> None:
    heard: list[Batch] = []
    trainer = make(regularizer=listener(heard, "logits", "logits_0"))
    with torch.no_grad():
        trainer.state.classifier.head.weight.neg_()  # as a probe's head, it differs from the teacher's
    next(trainer.steps())
    (batch,) = heard
    assert batch.logits is not None and batch.logits_0 is not None
    torch.testing.assert_close(batch.logits_0, tiny_classifier.head(batch.features))
    torch.testing.assert_close(batch.logits, -batch.logits_0)


def test_teacher_of_text_answers_with_class_names(make: Callable[..., Trainer], tiny_classifier: Classifier, tiny_text: Any) -> None:
    heard: list[Batch] = []
    named = zero_shot_head(tiny_text, ("red", "green", "yellow", "blue", "magenta", "cyan"), ("{}",))
    trainer = make(regularizer=listener(heard, "logits_0"), classifier=Classifier(tiny_classifier.encoder, named))
    next(trainer.steps())
    assert heard[0].logits_0 is not None and torch.equal(heard[0].logits_0, named(heard[0].features))


def test_nobody_is_asked_where_nothing_looks_at_it(make: Callable[..., Trainer]) -> None:
    heard: list[Batch] = []
    trainer, calls = make(regularizer=listener(heard)), []
    trainer.teacher.model.register_forward_hook(lambda *_: calls.append(1))
    trainer.teacher.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    next(trainer.steps())
    assert not calls and heard[0].features_0 is None and heard[0].logits_0 is None and heard[0].taps_0 == ()


# --- cached -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [7, 24, 256])
def test_cached_answers_are_those_on_the_centre_crop_of_each_row(chunk: int, teacher: Teacher, tiny_data: TrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_module, "CHUNK", chunk)
    cached = teacher.remembering(tiny_data, CPU)
    assert cached.cached is not None and len(cached.cached.features) == len(tiny_data.labels)
    taught, expected = cached(ROWS, torch.randn(4, 3, 8, 8)), teacher.ask(tiny_data.inputs(ROWS, CPU))
    torch.testing.assert_close(taught.features, expected.features, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(taught.logits, expected.logits, atol=1e-5, rtol=1e-5)
    assert len(taught.taps) == len(expected.taps) == 5
    for tap, asked in zip(taught.taps, expected.taps, strict=True):
        torch.testing.assert_close(tap, asked, atol=1e-6, rtol=1e-5)


def test_cached_features_are_rows_of_the_whole_extraction(make: Callable[..., Trainer], tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    dataset = Dataset("tiny", "a", "train", tiny_data.images, tiny_data.labels, ("x",), ("{}",), "")
    everything = extract(tiny_classifier.encoder, tiny_data.preprocess, dataset).values
    trainer = make("fda", teacher_cache="center_crop")
    rows, images = trainer.sampler(3), torch.zeros(24, 3, 8, 8)
    np.testing.assert_allclose(trainer.teacher(rows, images).features, everything[rows.numpy()], atol=1e-6)


def test_too_many_activations_are_refused_before_they_are_all_there(teacher: Teacher, tiny_data: TrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = teacher.remembering(tiny_data, CPU).cached
    assert whole is not None
    size, calls = sum(tap.numel() * tap.element_size() for tap in whole.taps), []
    monkeypatch.setattr(teacher_module, "CHUNK", 8)
    monkeypatch.setattr(teacher_module, "CACHED_BYTES", size)
    assert teacher.remembering(tiny_data, CPU).cached is not None
    monkeypatch.setattr(teacher_module, "CACHED_BYTES", size - 1)
    teacher.model.encoder.visual.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(UserError, match=r"^teacher_cache = 'center_crop' would hold 0\.0 GB of activations; give none"):
        teacher.remembering(tiny_data, CPU)
    assert len(calls) == 1
    assert Teacher(teacher.model).remembering(tiny_data, CPU).cached is not None  # features alone are small


def test_too_many_activations_are_refused_in_a_run(make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_module, "CACHED_BYTES", 1000)
    with pytest.raises(UserError, match="teacher_cache = 'center_crop' would hold"):
        make("ldifs", teacher_cache="center_crop")
    make("fda", teacher_cache="center_crop")
    make("ldifs")


# --- no gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_cached", [False, True])
def test_answers_carry_no_gradient(is_cached: bool, tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    learning = Teacher(tiny_classifier.requires_grad_(True), with_taps=True)
    taught = (learning.remembering(tiny_data, CPU) if is_cached else learning)(ROWS, torch.randn(4, 3, 8, 8, requires_grad=True))
    assert not any(answer.requires_grad for answer in (taught.features, taught.logits, *taught.taps))


@pytest.mark.parametrize("method", ["fda", "proxy_fda", "ldifs", "kd", "lwf", "l2_sp", "ewc"])
def test_no_gradient_reaches_the_teacher(method: str, make: Callable[..., Trainer]) -> None:
    trainer = make(method)
    list(trainer.steps())
    assert all(p.grad is None and not p.requires_grad for p in trainer.teacher.model.parameters())
    assert not trainer.teacher.model.training
    learned = {id(p) for group in trainer.state.optimizer.param_groups for p in group["params"]}
    assert not learned & {id(p) for p in trainer.teacher.model.parameters()}


def test_answers_can_be_kept_without_the_model_changing_them(teacher: Teacher, tiny_data: TrainData) -> None:
    cached = teacher.remembering(tiny_data, CPU)
    before = cached(ROWS, torch.zeros(4, 3, 8, 8)).features.clone()
    cached(ROWS, torch.zeros(4, 3, 8, 8)).features.zero_()  # what is handed out is a copy
    with torch.no_grad():
        teacher.model.encoder.visual.project.weight.zero_()
    assert torch.equal(cached(ROWS, torch.zeros(4, 3, 8, 8)).features, before)
    assert isinstance(cached.model.head, Head)
