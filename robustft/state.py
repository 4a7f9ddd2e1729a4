"""All that changes while a run trains, as one thing that is saved and loaded."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .heads import Classifier

MEMORY_LR = 1e-3


class TrainState:
    """Weights, optimizer, step, a regularizer's memory, average and best weights. Random draws depend on the step alone.

    Args:
        classifier: Trained in place; what requires no gradient stays.
        lr: First learning rate.
        weight_decay: Decoupled decay of matrices.
        decays_tower: Whether the tower's matrices are decayed, and not only the head's.
        memory: A regularizer's memory; what of it learns has a group of its own, at a constant rate and without decay.
        is_averaged: Whether an average of the weights is kept, from the start on.

    Attributes:
        best: Weights of the best validation accuracy so far, empty before the first.
        best_accuracy: That accuracy, -1 before the first.
        stale: Validations since then.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        lr: float,
        weight_decay: float,
        decays_tower: bool = True,
        memory: nn.Module | None = None,
        is_averaged: bool = False,
    ):
        self.classifier, self.memory, self.step = classifier, memory, 0
        self.average = copied(classifier.state_dict()) if is_averaged else {}
        self.best: dict[str, Tensor] = {}
        self.best_accuracy, self.stale = -1.0, 0
        names = [(name, p) for name, p in classifier.named_parameters() if p.requires_grad]
        is_decayed = {name: p.ndim > 1 and "lora_" not in name and (decays_tower or name.startswith("head.")) for name, p in names}
        groups = [
            {"params": [p for name, p in names if is_decayed[name]], "weight_decay": weight_decay, "is_scheduled": True},
            {"params": [p for name, p in names if not is_decayed[name]], "weight_decay": 0.0, "is_scheduled": True},
        ]
        if memory is not None and (learned := list(memory.parameters())):
            groups.append({"params": learned, "weight_decay": 0.0, "is_scheduled": False, "lr": MEMORY_LR})
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, fused=True)

    def set_rate(self, rate: float) -> None:
        """Sets the learning rate of the classifier's weights."""
        for group in self.optimizer.param_groups:
            if group["is_scheduled"]:
                group["lr"] = rate

    def average_in(self, share: float) -> None:
        """Moves the average towards the current weights: ``(1 - share) * average + share * weights``."""
        if share == 0:
            return
        for name, value in self.classifier.state_dict().items():
            if share == 1 or not value.is_floating_point():
                self.average[name] = value.detach().clone()
            else:
                self.average[name].lerp_(value.detach(), share)

    def result(self) -> dict[str, Tensor]:
        """Returns the weights that the run has come to: the average where one is kept, else the current ones."""
        return self.average or self.classifier.state_dict()

    def keep_if_best(self, accuracy: float) -> None:
        """Keeps the weights if no earlier validation was as good."""
        if accuracy > self.best_accuracy:
            self.best, self.best_accuracy, self.stale = copied(self.result()), accuracy, 0
        else:
            self.stale += 1

    def tensors(self) -> dict[str, Tensor]:
        """Returns everything as named tensors, for a checkpoint."""
        saved = _prefixed("model", self.classifier.state_dict()) | _prefixed("average", self.average) | _prefixed("best", self.best)
        if self.memory is not None:
            saved |= _prefixed("memory", self.memory.state_dict())
        for index, slots in self.optimizer.state_dict()["state"].items():
            saved |= _prefixed(f"optimizer.{index}", slots)
        return saved | {
            "step": torch.tensor(self.step),
            "best_accuracy": torch.tensor(self.best_accuracy, dtype=torch.float64),
            "stale": torch.tensor(self.stale),
        }

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Goes back to a checkpoint of the same run."""
        self.step, self.best_accuracy, self.stale = int(saved["step"]), float(saved["best_accuracy"]), int(saved["stale"])
        self.classifier.load_state_dict(_under("model", saved))
        there = next(self.classifier.parameters()).device
        self.average, self.best = ({name: value.to(there) for name, value in _under(kind, saved).items()} for kind in ("average", "best"))
        if self.memory is not None:
            self.memory.load_state_dict(_under("memory", saved))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("optimizer", saved).items():
            index, slot = key.split(".", 1)
            state.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights that do not change with the model's."""
    return {name: value.detach().clone() for name, value in weights.items()}


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def _under(prefix: str, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in saved.items() if name.startswith(f"{prefix}.")}
