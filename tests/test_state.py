"""What a run saves: all of it comes back, averages are sums done by hand, and the best weights are the first that were."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustft import store
from robustft.encoder import Encoder
from robustft.heads import Classifier, Head
from robustft.regularizers.proxy_fda import Generator
from robustft.state import MEMORY_LR, TrainState, copied
from robustft.train import Trainer

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def state_of(classifier: Classifier, *, is_averaged: bool = True) -> TrainState:
    """A state with everything in it, on a copy of the classifier, the same each time."""
    torch.manual_seed(3)
    return TrainState(copy.deepcopy(classifier), lr=0.01, weight_decay=0.1, memory=Generator(5), is_averaged=is_averaged)


def smallest() -> Classifier:
    """A classifier of a handful of weights, with statistics."""
    return Classifier(Encoder(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))), Head(torch.ones(1, 2))).eval()


def update(state: TrainState) -> None:
    """One update of model and memory, whatever the loss."""
    assert state.memory is not None
    features = state.classifier.encoder(IMAGES)
    state.optimizer.zero_grad(set_to_none=True)
    (state.classifier(IMAGES).logsumexp(1).mean() + (state.memory(features.detach()[None], 2) ** 2).sum()).backward()
    state.optimizer.step()
    state.step += 1


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def with_weights(classifier: Classifier, seed: int) -> Classifier:
    """A copy with other weights, and other numbers in its buffers."""
    other, draw = copy.deepcopy(classifier), torch.Generator().manual_seed(seed)
    for name, value in other.state_dict().items():
        value.copy_(torch.rand(value.shape, generator=draw) if value.is_floating_point() else torch.tensor(7 + seed))
        assert "num_batches" not in name or value == 7 + seed
    return other


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_everything_comes_back_from_disk(tiny_classifier: Classifier, tmp_path: Path) -> None:
    whole, again = state_of(tiny_classifier), state_of(with_weights(tiny_classifier, 1))
    for accuracy in (0.1 + 0.2, 0.25, 0.3):  # the first is no short number: it must come back to the bit
        update(whole)
        whole.average_in(0.3)
        whole.keep_if_best(accuracy)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    store.save_weights("a", "checkpoint", whole.tensors(), tmp_path)
    again.load(store.load_weights("a", "checkpoint", root=tmp_path) or {})
    assert (again.step, again.best_accuracy, again.stale) == (3, 0.1 + 0.2, 2)
    assert same(again.average, whole.average) and same(again.best, whole.best)
    assert same(again.memory.state_dict(), whole.memory.state_dict()) and same(again.classifier.state_dict(), whole.classifier.state_dict())
    assert same(again.tensors(), whole.tensors())
    for state in (whole, again):
        update(state)
        state.average_in(0.3)
    assert same(again.tensors(), whole.tensors()), "the optimizer of model and memory goes on where it was"


def test_names_of_a_checkpoint_are_the_parts(tiny_classifier: Classifier) -> None:
    state = state_of(tiny_classifier)
    update(state)
    state.keep_if_best(0.5)
    names = set(state.tensors())
    for kind in ("model", "average", "best"):
        assert {name for name in names if name.startswith(f"{kind}.")} == {f"{kind}.{name}" for name in tiny_classifier.state_dict()}
    assert {name for name in names if name.startswith("memory.")} == {f"memory.{name}" for name in Generator(5).state_dict()}
    learned = len(list(tiny_classifier.parameters())) + len(list(Generator(5).parameters()))
    assert {name.split(".")[1] for name in names if name.startswith("optimizer.")} == {str(index) for index in range(learned)}


def test_fresh_state_comes_back_too(tiny_classifier: Classifier) -> None:
    state = TrainState(copy.deepcopy(tiny_classifier), lr=0.1, weight_decay=0.0)
    saved = state.tensors()
    state.load(saved)
    assert (state.step, state.best_accuracy, state.stale, state.average, state.best, state.memory) == (0, -1.0, 0, {}, {}, None)
    assert same(state.tensors(), saved)


def test_checkpoint_of_another_model_is_refused(tiny_classifier: Classifier) -> None:
    saved = state_of(tiny_classifier).tensors()
    del saved["model.head.bias"]
    with pytest.raises(RuntimeError, match=r"head\.bias"):
        state_of(tiny_classifier).load(saved)


# --- averages ---------------------------------------------------------------------------------------------------------


@given(share=st.floats(0.01, 0.99), steps=st.integers(1, 4))
def test_average_is_done_by_hand(share: float, steps: int) -> None:
    torch.manual_seed(0)
    model = smallest()
    state = TrainState(model, lr=0.1, weight_decay=0.0, is_averaged=True)
    expected = {name: value.double() for name, value in copied(model.state_dict()).items()}
    for _ in range(steps):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.copy_(torch.randn(value.shape) * 9)  # counters become -9 to 9
        state.average_in(share)
        for name, value in model.state_dict().items():
            mixed = (1 - share) * expected[name] + share * value.double()
            expected[name] = mixed if value.is_floating_point() else value.double()
    for name, value in state.average.items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-5, rtol=1e-5)
        assert value.dtype == model.state_dict()[name].dtype


def test_share_of_nothing_and_of_all(tiny_classifier: Classifier) -> None:
    state = state_of(tiny_classifier)
    state.classifier.load_state_dict(with_weights(tiny_classifier, 1).state_dict())
    state.average_in(0.0)
    assert same(state.average, dict(tiny_classifier.state_dict())), "the average begins with the start"
    state.average_in(1.0)
    assert same(state.average, dict(state.classifier.state_dict()))
    kept = copied(state.average)
    update(state)
    assert same(state.average, kept), "the average shares no memory with the weights"


def test_integer_buffers_are_copied(tiny_classifier: Classifier) -> None:
    state = state_of(with_weights(tiny_classifier, 1))
    state.classifier.load_state_dict(with_weights(tiny_classifier, 2).state_dict())
    state.average_in(0.25)
    (name,) = [name for name in state.average if "num_batches" in name]
    assert state.average[name] == 9 and state.average[name].dtype == torch.long


def test_result_is_the_average_where_one_is_kept(tiny_classifier: Classifier) -> None:
    averaged, plain = state_of(tiny_classifier), state_of(tiny_classifier, is_averaged=False)
    for state in (averaged, plain):
        update(state)
    assert same(averaged.result(), dict(tiny_classifier.state_dict())) and plain.average == {}
    assert same(plain.result(), dict(plain.classifier.state_dict())) and not same(plain.result(), averaged.result())


# --- best weights -----------------------------------------------------------------------------------------------------


@given(accuracies=st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.5000001, 1.0]), min_size=1, max_size=8))
def test_earliest_among_the_best_is_kept(accuracies: list[float]) -> None:
    model = smallest()
    state = TrainState(model, lr=0.1, weight_decay=0.0)
    for step, accuracy in enumerate(accuracies):
        with torch.no_grad():
            model.head.bias.fill_(step)
        state.keep_if_best(accuracy)
    first = accuracies.index(max(accuracies))
    assert state.best["head.bias"].item() == first and state.best_accuracy == accuracies[first]
    assert state.stale == len(accuracies) - 1 - first


def test_best_of_an_averaged_run_is_its_average(tiny_classifier: Classifier) -> None:
    state = state_of(tiny_classifier)
    update(state)
    state.average_in(0.5)
    state.keep_if_best(0.4)
    kept = copied(state.average)
    update(state)
    state.average_in(0.5)
    assert same(state.best, kept) and not same(state.average, kept)


# --- what is decayed, and at what rate --------------------------------------------------------------------------------


def group_of(state: TrainState, parameter: nn.Parameter) -> dict[str, float]:
    """The rate and the decay of one parameter."""
    (group,) = [group for group in state.optimizer.param_groups if any(parameter is p for p in group["params"])]
    return {"lr": group["lr"], "weight_decay": group["weight_decay"]}


def test_memory_learns_at_its_own_constant_rate(tiny_classifier: Classifier) -> None:
    state = state_of(tiny_classifier)
    assert state.memory is not None
    for rate in (0.5, 0.0, 1e-6):
        state.set_rate(rate)
        assert group_of(state, state.classifier.head.weight) == {"lr": rate, "weight_decay": 0.1}
        assert group_of(state, state.classifier.head.bias) == {"lr": rate, "weight_decay": 0.0}
        assert all(group_of(state, p) == {"lr": MEMORY_LR, "weight_decay": 0.0} for p in state.memory.parameters())
    state.set_rate(0.0)
    before, weights = copied(state.memory.state_dict()), copied(state.classifier.state_dict())
    update(state)
    assert same(weights, dict(state.classifier.state_dict())) and not same(before, dict(state.memory.state_dict()))


def test_memory_that_does_not_learn_has_no_group(tiny_classifier: Classifier) -> None:
    memory = nn.Module()
    memory.register_buffer("fisher", torch.ones(3))
    state = TrainState(copy.deepcopy(tiny_classifier), lr=0.1, weight_decay=0.1, memory=memory)
    assert all(group["is_scheduled"] for group in state.optimizer.param_groups)
    saved = copied(state.tensors())
    memory.fisher.zero_()
    state.load(saved)
    assert memory.fisher.tolist() == [1, 1, 1]


def test_low_rank_additions_are_not_decayed(make: Callable[..., Trainer]) -> None:
    state = make("lora", weight_decay=0.3).state
    decays = {name: group_of(state, p)["weight_decay"] for name, p in state.classifier.named_parameters() if p.requires_grad}
    assert {name for name, decay in decays.items() if decay} == {"head.weight"} and any("lora_A" in name for name in decays)
    assert set(decays.values()) == {0.0, 0.3}


def test_frozen_weights_are_in_no_group(tiny_classifier: Classifier) -> None:
    classifier = copy.deepcopy(tiny_classifier)
    classifier.encoder.requires_grad_(False)
    state = TrainState(classifier, lr=0.1, weight_decay=0.1)
    learned = [p for group in state.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in learned} == {id(p) for p in classifier.head.parameters()}
