"""The loop: every method learns, resumes to the bit, ends its schedule at zero, and stops at the first number that is none."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustft import store
from robustft.heads import Classifier
from robustft.methods import METHODS, method_params, resolve_options
from robustft.registry import Entry, discover
from robustft.run import finished_classifier
from robustft.state import MEMORY_LR, TrainState
from robustft.train import TrainConfig, Trainer, learning_rate
from robustft.types import Batch, RunConfig, TrainData, UserError

Make = Callable[..., Trainer]
REGULARIZED = [name for name, method in METHODS.items() if method.regularizer]
TRAINED = [name for name, method in METHODS.items() if method.trains != "none"]
AVERAGED = [name for name in TRAINED if METHODS[name].average]
TAUGHT = [name for name in TRAINED if "teacher_cache" in resolve_options(name, {})]


def take(trainer: Trainer, steps: int) -> None:
    for _, _ in zip(range(steps), trainer.steps(), strict=False):
        pass


def taken(trainer: Trainer, steps: int) -> dict[str, Tensor]:
    """The weights after some steps."""
    take(trainer, steps)
    return weights(trainer)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.state.classifier.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stub(function: Any) -> Entry:
    return Entry("stub", function, ModuleType("stub"), (), "", "")


def strength(method: str, wanted: float) -> dict[str, float]:
    """A strength that the method accepts, as near to the wanted one as it allows."""
    (high,) = [p.high for p in method_params(method) if p.name == "reg_weight"]
    return {"reg_weight": min(wanted, high or wanted)}


@pytest.mark.parametrize("method", TRAINED)
def test_loss_falls(method: str, make: Make) -> None:
    gentle = (strength(method, 0.1) if method in REGULARIZED else {}) | ({"patience": 100} if method == "early_stopping" else {})
    records = list(make(method, steps=60, lr=0.02, sampler="class_balanced", **gentle).steps())
    assert [r.step for r in records] == list(range(1, 61))
    floor = math.log(24 / 6) if method == "flyp" else 0  # images of one class and their captions cannot be told apart
    assert sum(r.task_loss - floor for r in records[-5:]) < 0.5 * sum(r.task_loss - floor for r in records[:5])
    assert all(r.loss == pytest.approx(r.task_loss + r.reg_loss) for r in records)


def test_training_changes_tower_and_head_but_no_statistics_and_no_teacher(make: Make, tiny_classifier: Classifier) -> None:
    trainer = make()
    before, after = tiny_classifier.state_dict(), taken(trainer, 3)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if "running" in name or "num_batches" in name}
    assert same(dict(trainer.teacher.model.state_dict()), dict(before))


@pytest.mark.parametrize("method", TRAINED)
def test_weights_come_back_under_the_names_and_shapes_that_they_had(method: str, make: Make) -> None:
    untuned = METHODS[method].parts["tuning"].declares("finish") is None
    trainer, start = make(method), make("flyp" if METHODS[method].has_text_head else "ft").state.classifier.state_dict()
    take(trainer, 8)
    end = finished_classifier(trainer, RunConfig("tiny", "tiny", method)).state_dict()
    assert {name: value.shape for name, value in end.items()} == {name: value.shape for name, value in start.items()}
    assert all(torch.isfinite(value).all() for value in end.values())
    assert any(not torch.equal(end[name], start[name]) for name in end)
    measured = {name for name in end if "running" in name or "num_batches" in name} if METHODS[method].average else set()
    assert not untuned or all(torch.equal(end[name], value) for name, value in trainer.result().items() if name not in measured)


@pytest.mark.parametrize("method", TRAINED)
def test_resumed_run_is_the_uninterrupted_one_to_the_bit(method: str, make: Make, tmp_path: Path) -> None:
    whole, first, second = make(method), make(method), make(method)
    expected = list(whole.steps())
    take(first, 3)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    store.save_weights("a", "checkpoint", first.state.tensors(), tmp_path)
    second.state.load(store.load_weights("a", "checkpoint", root=tmp_path) or {})
    records = list(second.steps())
    assert [(r.step, r.loss, r.grad_norm, r.lr, r.extras) for r in records] == [(r.step, r.loss, r.grad_norm, r.lr, r.extras) for r in expected[3:]]
    # Weights, average, best weights, memory, optimizer and counters.
    assert same(second.state.tensors(), whole.state.tensors()) and same(second.result(), whole.result())


def test_checkpoint_holds_what_the_method_keeps(make: Make) -> None:
    def kinds(method: str) -> set[str]:
        trainer = make(method)
        take(trainer, 3)
        return {name.split(".")[0] for name in trainer.state.tensors()} - {"model", "optimizer", "step", "best_accuracy", "stale"}

    assert (kinds("ft"), kinds("ema"), kinds("proxy_fda"), kinds("early_stopping")) == (set(), {"average"}, {"memory"}, {"best"})


@pytest.mark.parametrize("method", TRAINED)
def test_seed_decides(method: str, make: Make) -> None:
    ends = []
    for seed in (1, 1, 2):
        torch.rand(3)  # the global generator plays no part
        ends.append(taken(make(method, seed=seed), 3))
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


@pytest.mark.parametrize("method", REGULARIZED)
def test_regularizer_of_no_weight_is_plain_fine_tuning(method: str, make: Make) -> None:
    # Without weight decay, for l2_sp leaves its anchored weights undecayed.
    shared: dict[str, Any] = {"weight_decay": 0.0, "sampler": "class_balanced"}
    assert same(taken(make(**shared), 8), taken(make(method, reg_weight=0.0, **shared), 8))


@pytest.mark.parametrize("method", REGULARIZED)
def test_regularizer_of_some_weight_is_not(method: str, make: Make) -> None:
    shared: dict[str, Any] = {"weight_decay": 0.0, "sampler": "class_balanced"}
    assert not same(taken(make(**shared), 8), taken(make(method, **strength(method, 100.0), **shared), 8))


# --- averages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", AVERAGED)
def test_average_is_the_weighted_sum_of_all_weights_of_the_run(method: str, make: Make) -> None:
    trainer = make(method)
    rule, total = trainer.average, weights(trainer)
    assert rule is not None
    for record in trainer.steps():
        share = rule(record.step, 8)
        total = {name: (1 - share) * total[name] + share * value for name, value in weights(trainer).items()}
    for name, value in trainer.result().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, total[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [0.1, 0.5, 1.0, 3.0])
def test_beta_average_is_the_sum_over_the_whole_run_weighed_by_the_density(shape: float, make: Make) -> None:
    trainer = make("clipood", beta=shape)
    seen = [weights(trainer), *(weights(trainer) for _ in trainer.steps())]
    at = [(i + 0.5) / 9 for i in range(9)]  # the start and eight updates
    density = [(x * (1 - x)) ** (shape - 1) for x in at]
    for name, value in trainer.result().items():
        if value.is_floating_point():
            expected = sum(d * w[name].double() for d, w in zip(density, seen, strict=True)) / sum(density)
            torch.testing.assert_close(value.double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", AVERAGED)
def test_averaging_does_not_change_the_training(method: str, make: Make) -> None:
    averaged, plain = make(method), make(method)
    plain.average = None
    assert same(taken(averaged, 8), taken(plain, 8))


ENDS = [("wise_ft", "alpha", 0.0, "start"), ("wise_ft", "alpha", 1.0, "end"), ("ema", "ema_decay", 1.0, "start"), ("ema", "ema_decay", 0.0, "end")]


@pytest.mark.parametrize(("method", "option", "value", "expected"), ENDS)
def test_average_at_its_ends_is_start_or_fine_tuning_to_the_bit(method: str, option: str, value: float, expected: str, make: Make) -> None:
    ends = {"start": weights(make()), "end": taken(make(), 8)}
    trainer = make(method, **{option: value})
    take(trainer, 8)
    assert same(trainer.result(), ends[expected])
    # Nothing was averaged, so the statistics of normalisation fit as they are.
    assert same(finished_classifier(trainer, RunConfig("tiny", "tiny", method)).state_dict(), ends[expected])


# --- early stopping ---------------------------------------------------------------------------------------------------


def right(model: nn.Module, data: TrainData) -> float:
    """Share of validation images that a model gets right."""
    assert data.val_images is not None and data.val_labels is not None
    with torch.no_grad():
        guesses = [int(model(data.preprocess(image[None])).argmax()) for image in data.val_images]
    return sum(guess == label for guess, label in zip(guesses, data.val_labels.tolist(), strict=True)) / len(guesses)


def test_training_that_does_not_improve_ends_with_its_first_weights(make: Make) -> None:
    trainer = make("early_stopping", steps=30, patience=3, lr=1e-8)
    records = list(trainer.steps())
    assert [r.step for r in records if "val_accuracy" in r.extras] == [2, 4, 6, 8] and len(records) == 8
    assert same(trainer.result(), taken(make("early_stopping", steps=30, lr=1e-8), 2)) and not same(trainer.result(), weights(trainer))
    assert list(trainer.steps()) == []  # asked again, as by a resumed run, it stays where it is


def test_best_weights_are_those_of_the_best_validation(make: Make, tiny_data: TrainData) -> None:
    trainer, seen, kept = make("early_stopping", steps=40, patience=100, lr=0.05, checkpoint_every=3), [], []
    for record in trainer.steps():
        if record.extras:
            seen.append(record.extras["val_accuracy"])
            kept.append(weights(trainer))
            assert seen[-1] == pytest.approx(right(trainer.state.classifier, tiny_data))
    assert record.step == 40 and len(seen) == 14, "the last step is validated too"
    assert len(set(seen)) > 2 and same(trainer.result(), kept[seen.index(max(seen))])


def test_improving_training_goes_on_until_patience_is_out(make: Make) -> None:
    records = list(make("early_stopping", steps=60, patience=3, lr=0.05, checkpoint_every=5, sampler="class_balanced").steps())
    accuracies = [r.extras["val_accuracy"] for r in records if "val_accuracy" in r.extras]
    best = accuracies.index(max(accuracies))
    assert best > 1 and max(accuracies) > 0.9 > accuracies[0]
    assert len(records) == min(60, 5 * (best + 1 + 3)) == 5 * len(accuracies)


def test_validation_changes_nothing_but_the_end(make: Make) -> None:
    assert same(taken(make("early_stopping", patience=100), 8), taken(make("ft"), 8))


def test_only_training_and_validation_images_are_looked_at(make: Make, tiny_data: TrainData) -> None:
    """And what is chosen on validation images is chosen on their labels: with others, other weights."""
    seen: list[Tensor] = []
    spied = replace(tiny_data, preprocess=lambda pixels: seen.append(pixels) or tiny_data.preprocess(pixels))
    assert tiny_data.val_images is not None and tiny_data.val_labels is not None
    trainer = make("early_stopping", data=spied)
    take(trainer, 8)
    known = {image.numpy().tobytes() for image in tiny_data.images}
    batches = [pixels for pixels in seen if not torch.equal(pixels, tiny_data.val_images)]
    assert len(seen) - len(batches) == 4 and len(batches) == 8
    assert all(image.numpy().tobytes() in known for pixels in batches for image in pixels)
    one_class = replace(tiny_data, val_labels=torch.zeros_like(tiny_data.val_labels))
    other = make("early_stopping", data=one_class)
    take(other, 8)
    assert same(weights(other), weights(trainer)) and other.state.best_accuracy != trainer.state.best_accuracy


def test_averaged_weights_are_the_ones_that_are_validated(make: Make, tiny_data: TrainData) -> None:
    trainer = make("ema", patience=100, ema_decay=0.8, steps=30, lr=0.05, checkpoint_every=5)
    for record in trainer.steps():
        if "val_accuracy" in record.extras:
            model = copy.deepcopy(trainer.state.classifier)
            model.load_state_dict(trainer.state.average)
            assert record.extras["val_accuracy"] == pytest.approx(right(model, tiny_data))
    assert trainer.state.best_accuracy > 0.2


@pytest.mark.parametrize("method", [name for name in TRAINED if "patience" in resolve_options(name, {})])
def test_training_that_ends_early_has_still_trained(method: str, make: Make) -> None:
    trainer = make(method, patience=1, lr=1e-3)
    start = weights(trainer)
    take(trainer, 8)
    assert any(not torch.equal(start[name], value) for name, value in trainer.result().items())


NOTHING: dict[str, Any] = {"val_images": torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "val_labels": torch.zeros(0, dtype=torch.long)}


@pytest.mark.parametrize("missing", [{"val_images": None, "val_labels": None}, {"val_images": None}, NOTHING])
def test_patience_without_validation_images_is_refused(missing: dict[str, Any], make: Make, tiny_data: TrainData) -> None:
    with pytest.raises(UserError, match=r"^patience needs validation images .*; set patience=0\.$"):
        take(make("early_stopping", data=replace(tiny_data, **missing)), 8)


def test_no_validation_images_are_needed_without_patience(make: Make, tiny_data: TrainData) -> None:
    records = list(make(data=replace(tiny_data, val_images=None, val_labels=None)).steps())
    assert len(records) == 8 and not any("val_accuracy" in r.extras for r in records)


# --- weights that nothing reaches -------------------------------------------------------------------------------------


def test_weight_without_gradient_stops_the_run_before_it_moves(make: Make, tiny_classifier: Classifier) -> None:
    tiny_classifier.encoder.visual.aside = nn.Parameter(torch.ones(2, 2))
    trainer = make()
    start = weights(trainer)
    with pytest.raises(UserError, match=r"^1 trained weights get no gradient, 'encoder\.visual\.aside' first; .* choose another\.$"):
        list(trainer.steps())
    assert trainer.state.step == 0 and same(weights(trainer), start)


def test_frozen_weight_needs_no_gradient(make: Make, tiny_classifier: Classifier) -> None:
    tiny_classifier.encoder.visual.aside = nn.Parameter(torch.ones(2, 2))
    take(make("lora"), 2)


# --- memory and teacher -----------------------------------------------------------------------------------------------


def test_generator_learns_at_a_constant_rate_while_the_model_follows_its_schedule(make: Make) -> None:
    trainer = make("proxy_fda")
    memory = trainer.state.memory
    assert memory is not None
    before, start = copy.deepcopy(memory.state_dict()), weights(trainer)
    for record in trainer.steps():
        rates = {group["is_scheduled"]: group["lr"] for group in trainer.state.optimizer.param_groups}
        assert rates == {True: learning_rate(trainer.config, record.step - 1), False: MEMORY_LR}
        after = copy.deepcopy(memory.state_dict())
        assert all(not torch.equal(before[name], after[name]) for name in before if "weight" in name)
        moved = weights(trainer)
        assert record.step < 8 or same(moved, start), "at a rate of 0 the model stays and the generator goes on"
        before, start = after, moved


@pytest.mark.parametrize("method", TAUGHT)
def test_cached_teacher_trains_too_and_differs(method: str, make: Make) -> None:
    cached, online = make(method, teacher_cache="center_crop"), make(method)
    assert cached.teacher.cached is not None and online.teacher.cached is None
    assert same(cached.objective.memory.state_dict(), online.objective.memory.state_dict()) if cached.objective.memory else True
    first, last = taken(cached, 8), taken(online, 8)
    assert cached.state.step == 8 and not same(first, last) and all(torch.isfinite(value).all() for value in first.values())


def test_teacher_is_cached_only_where_it_is_asked(make: Make) -> None:
    assert make("fda", teacher_cache="center_crop").teacher.cached is not None
    with pytest.raises(UserError, match="no option 'teacher_cache'"):
        make("ft", teacher_cache="center_crop")


@pytest.mark.parametrize("method", TAUGHT)
def test_cached_teacher_needs_no_pass_a_step(method: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, calls = make(method, teacher_cache="center_crop"), []
    trainer.teacher.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    take(trainer, 3)
    assert not calls


# --- schedule ---------------------------------------------------------------------------------------------------------


@given(steps=st.integers(2, 60), warmup=st.floats(0, 0.9))
@example(steps=2, warmup=0.9)  # a warm-up that rounds to all the steps
@example(steps=4, warmup=0.9)
def test_rate_grows_then_falls_to_zero(steps: int, warmup: float) -> None:
    rates = [learning_rate(TrainConfig(steps=steps, lr=0.5, warmup=warmup), step) for step in range(steps)]
    peak = rates.index(max(rates))
    assert all(0 <= rate <= 0.5 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


@given(steps=st.integers(1, 20), warmup=st.floats(0, 5))
def test_rate_is_a_number_whatever_the_warmup(steps: int, warmup: float) -> None:
    rates = [learning_rate(TrainConfig(steps=steps, lr=0.5, warmup=warmup), step) for step in range(steps)]
    assert all(math.isfinite(rate) and 0 <= rate <= 0.5 for rate in rates) and max(rates) > 0


@pytest.mark.parametrize("method", TRAINED)
def test_recorded_rate_is_the_schedule(method: str, make: Make) -> None:
    trainer = make(method)
    assert [r.lr for r in trainer.steps()] == [learning_rate(trainer.config, step) for step in range(8)]


@pytest.mark.parametrize("value", ["0", "-1e-3", "1.5", "nan", "inf", "fast", "", None, True, [0.1]])
def test_rate_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^lr = .* is not allowed; give a number from 1e-08 to 1\.$"):
        resolve_options("ft", {"lr": value})


# --- numbers that are none --------------------------------------------------------------------------------------------


def not_finite_at(step: int, value: float) -> Entry:
    """A regularizer that is harmless up to a step and then breaks."""
    calls: list[int] = []

    def penalty(batch: Batch) -> Tensor:
        calls.append(1)
        return batch.features.square().mean() * (value if len(calls) == step else 0.1)

    return stub(penalty)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_regularizer_stops_the_run_at_its_last_good_weights(value: float, make: Make) -> None:
    good = taken(make(regularizer=not_finite_at(99, value)), 3)
    broken = make(regularizer=not_finite_at(4, value))
    with pytest.raises(UserError, match=r"regularizer is (nan|inf) at step 4; lower lr"):
        list(broken.steps())
    assert broken.state.step == 3 and same(weights(broken), good)


def test_broken_weights_are_named_as_the_task_loss(make: Make) -> None:
    trainer = make()
    take(trainer, 2)
    with torch.no_grad():
        trainer.state.classifier.head.bias[0] = float("nan")
    with pytest.raises(UserError, match="task loss is nan at step 3"):
        list(trainer.steps())


def test_gradient_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(make: Make, tiny_classifier: Classifier) -> None:
    # An unsquared norm at zero: its value is 0, its gradient 0 / 0.
    trainer = make(regularizer=stub(lambda batch: (batch.features - batch.features.detach()).square().sum().sqrt()))
    with pytest.raises(UserError, match="step 1"):
        list(trainer.steps())
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())
    assert trainer.state.step == 0 and same(weights(trainer), dict(tiny_classifier.state_dict()))


# --- weight decay -----------------------------------------------------------------------------------------------------


def decayed(state: TrainState) -> set[str]:
    """Names of the parameters that AdamW pulls to zero."""
    pulled = [p for group in state.optimizer.param_groups if group["weight_decay"] for p in group["params"]]
    return {name for name, p in state.classifier.named_parameters() if any(p is q for q in pulled)}


def test_norms_and_biases_are_not_decayed(make: Make) -> None:
    state = make().state
    everything = dict(state.classifier.named_parameters())
    assert decayed(state) == {name for name, p in everything.items() if p.ndim > 1} and "head.weight" in decayed(state)
    assert sum(len(group["params"]) for group in state.optimizer.param_groups) == len(everything)


@pytest.mark.parametrize("method", REGULARIZED)
def test_anchored_tower_is_not_decayed_but_its_head_is(method: str, make: Make) -> None:
    is_anchored = not discover("regularizers")[method].declares("DECAYS_ANCHORED", True)
    assert ({"head.weight"} == decayed(make(method).state)) == is_anchored
    assert not is_anchored or method in ("l1_sp", "l2_sp", "ewc") or "theta" in discover("regularizers")[method].declares("NEEDS")


@pytest.mark.parametrize("method", ["flyp", "flyp_ce"])
def test_text_tower_is_decayed_but_not_the_scale(method: str, make: Make) -> None:
    assert {name for name in decayed(make(method).state) if name.startswith("head.")} == {"head.tower.clip.letters.weight"}


def test_decay_pulls_by_the_rate(make: Make, tiny_classifier: Classifier) -> None:
    # With and without decay, the first update of a weight differs by lr * weight_decay * weight and by nothing else.
    plain, pulled = (taken(make(weight_decay=decay, warmup=0.0), 1) for decay in (0.0, 0.5))
    torch.testing.assert_close(plain["head.weight"] - pulled["head.weight"], 0.01 * 0.5 * tiny_classifier.head.weight.data, atol=1e-6, rtol=1e-4)
    assert torch.equal(plain["head.bias"], pulled["head.bias"])
