"""The loop: it learns, resumes to the bit, ends its schedule at zero, and stops at the first number that is none."""

import copy
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from robustft import store
from robustft.heads import Classifier
from robustft.methods import METHODS, find_method, regularizer_of, regularizer_options, resolve_options, train_config
from robustft.objective import Objective
from robustft.registry import Entry
from robustft.train import TrainConfig, TrainData, Trainer, TrainState, learning_rate
from robustft.types import Batch, UserError

REGULARIZED = [name for name, method in METHODS.items() if method.regularizer]
TRAINED = [name for name, method in METHODS.items() if method.trains == "tower"]


def make(classifier: Classifier, data: TrainData, method: str = "ft", *, seed: int = 0, regularizer: Entry | None = None, **given_: Any) -> Trainer:
    """A trainer on a copy of the classifier: a few steps of a method, its options checked as for a real run."""
    small = {"n_neighbors": 5} if method == "fda" else {}
    options = resolve_options(method, {"steps": 8, "batch_size": 24, "lr": 0.01, **small, **given_})
    objective = Objective(regularizer or regularizer_of(find_method(method)), regularizer_options(method, options))
    return Trainer(copy.deepcopy(classifier), data, objective, train_config(options), seed)


def take(trainer: Trainer, steps: int) -> None:
    for _, _ in zip(range(steps), trainer.steps(), strict=False):
        pass


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.state.classifier.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stub(function: Any) -> Entry:
    return Entry("stub", function, ModuleType("stub"), (), "", "")


@pytest.mark.parametrize("method", TRAINED)
def test_loss_falls(method: str, tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    gentle = {"reg_weight": 1.0} if method in REGULARIZED else {}
    records = list(make(tiny_classifier, tiny_data, method, steps=60, lr=0.02, **gentle).steps())
    assert [r.step for r in records] == list(range(1, 61))
    assert sum(r.task_loss for r in records[-5:]) < 0.5 * sum(r.task_loss for r in records[:5])
    assert all(r.loss == pytest.approx(r.task_loss + r.reg_loss) for r in records)


def test_training_changes_tower_and_head_but_no_statistics(tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    trainer = make(tiny_classifier, tiny_data)
    take(trainer, 3)
    before, after = tiny_classifier.state_dict(), weights(trainer)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if "running" in name or "num_batches" in name}
    assert same(dict(trainer.start.state_dict()), dict(before))


@pytest.mark.parametrize("method", TRAINED)
def test_resumed_run_is_the_uninterrupted_one_to_the_bit(method: str, tiny_classifier: Classifier, tiny_data: TrainData, tmp_path: Path) -> None:
    whole = make(tiny_classifier, tiny_data, method)
    expected = list(whole.steps())
    first = make(tiny_classifier, tiny_data, method)
    take(first, 3)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    store.save_weights("a", "checkpoint", first.state.tensors(), tmp_path)
    second = make(tiny_classifier, tiny_data, method)
    second.state.load(store.load_weights("a", "checkpoint", root=tmp_path) or {})
    records = list(second.steps())
    assert [(r.step, r.loss, r.grad_norm, r.lr) for r in records] == [(r.step, r.loss, r.grad_norm, r.lr) for r in expected[3:]]
    assert same(weights(second), weights(whole))


def test_seed_decides(tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    one, again, other = (make(tiny_classifier, tiny_data, seed=seed) for seed in (1, 1, 2))
    for trainer in (one, again, other):
        torch.rand(3)  # the global generator plays no part
        take(trainer, 3)
    assert same(weights(one), weights(again)) and not same(weights(one), weights(other))


@pytest.mark.parametrize("method", REGULARIZED)
def test_regularizer_of_no_weight_is_plain_fine_tuning(method: str, tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    # Without weight decay, for l2_sp leaves its anchored weights undecayed.
    shared: dict[str, Any] = {"weight_decay": 0.0, "sampler": "class_balanced"}
    plain, regularized = make(tiny_classifier, tiny_data, **shared), make(tiny_classifier, tiny_data, method, reg_weight=0.0, **shared)
    take(plain, 8)
    take(regularized, 8)
    assert same(weights(plain), weights(regularized))


@pytest.mark.parametrize("method", REGULARIZED)
def test_regularizer_of_some_weight_is_not(method: str, tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    shared: dict[str, Any] = {"weight_decay": 0.0, "sampler": "class_balanced"}
    plain, regularized = make(tiny_classifier, tiny_data, **shared), make(tiny_classifier, tiny_data, method, reg_weight=100.0, **shared)
    take(plain, 8)
    take(regularized, 8)
    assert not same(weights(plain), weights(regularized))


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


def test_recorded_rate_is_the_schedule(tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    trainer = make(tiny_classifier, tiny_data)
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
def test_broken_regularizer_stops_the_run_at_its_last_good_weights(value: float, tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    good = make(tiny_classifier, tiny_data, regularizer=not_finite_at(99, value))
    take(good, 3)
    broken = make(tiny_classifier, tiny_data, regularizer=not_finite_at(4, value))
    with pytest.raises(UserError, match=r"regularizer is (nan|inf) at step 4; lower lr"):
        list(broken.steps())
    assert broken.state.step == 3 and same(weights(broken), weights(good))


def test_broken_weights_are_named_as_the_task_loss(tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    trainer = make(tiny_classifier, tiny_data)
    take(trainer, 2)
    with torch.no_grad():
        trainer.state.classifier.head.bias[0] = float("nan")
    with pytest.raises(UserError, match="task loss is nan at step 3"):
        list(trainer.steps())


def test_gradient_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    # An unsquared norm at zero: its value is 0, its gradient 0 / 0.
    trainer = make(tiny_classifier, tiny_data, regularizer=stub(lambda batch: (batch.features - batch.features.detach()).square().sum().sqrt()))
    with pytest.raises(UserError, match="step 1"):
        list(trainer.steps())
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())
    assert trainer.state.step == 0 and same(weights(trainer), dict(tiny_classifier.state_dict()))


# --- weight decay -----------------------------------------------------------------------------------------------------


def decayed(state: TrainState) -> set[str]:
    """Names of the parameters that AdamW pulls to zero."""
    pulled = [p for group in state.optimizer.param_groups if group["weight_decay"] for p in group["params"]]
    return {name for name, p in state.classifier.named_parameters() if any(p is q for q in pulled)}


def test_norms_and_biases_are_not_decayed(tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    state = make(tiny_classifier, tiny_data).state
    everything = dict(state.classifier.named_parameters())
    assert decayed(state) == {name for name, p in everything.items() if p.ndim > 1} and "head.weight" in decayed(state)
    assert sum(len(group["params"]) for group in state.optimizer.param_groups) == len(everything)


def test_anchored_tower_is_not_decayed_but_its_head_is(tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    assert decayed(make(tiny_classifier, tiny_data, "l2_sp").state) == {"head.weight"}


def test_decay_pulls_by_the_rate(tiny_classifier: Classifier, tiny_data: TrainData) -> None:
    # With and without decay, the first update of a weight differs by lr * weight_decay * weight and by nothing else.
    plain, pulled = (make(tiny_classifier, tiny_data, weight_decay=decay, warmup=0.0) for decay in (0.0, 0.5))
    take(plain, 1)
    take(pulled, 1)
    start = tiny_classifier.head.weight
    torch.testing.assert_close(plain.state.classifier.head.weight - pulled.state.classifier.head.weight, 0.01 * 0.5 * start, atol=1e-6, rtol=1e-4)
    assert torch.equal(plain.state.classifier.head.bias, pulled.state.classifier.head.bias)
