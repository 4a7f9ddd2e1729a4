"""The only training loop: a generator that yields one record a step."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from .heads import Classifier
from .objective import Objective
from .sampling import make_sampler, random_crop
from .seeds import generator_of
from .types import Batch, Range, StepRecord, UserError

CALIBRATION_BATCHES = 20


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the loop.

    Attributes:
        steps: Optimizer updates.
        batch_size: Images an update.
        lr: Peak learning rate of AdamW; 1e-3 suits GlyphCLIP, 1e-5 a ViT-B/32.
        weight_decay: Decoupled decay of matrices; norms and biases are never decayed.
        warmup: Part of the steps over which the rate grows linearly; a cosine then takes it to 0.
        clip_norm: Largest norm of the gradient.
        label_smoothing: Part of the target that is spread over all classes.
        head_start: Where the head begins: class names, or a linear probe on starting features.
        sampler: How a batch is drawn; class_balanced takes 16 classes x 4 at 64.
        checkpoint_every: Updates between two checkpoints.
    """

    steps: Annotated[int, Range(1, 1_000_000)] = 120
    batch_size: Annotated[int, Range(2, 8192)] = 64
    lr: Annotated[float, Range(1e-8, 1.0)] = 1e-3
    weight_decay: Annotated[float, Range(0.0, 1.0)] = 0.1
    warmup: Annotated[float, Range(0.0, 0.9)] = 0.1
    clip_norm: Annotated[float, Range(1e-4, 1e4)] = 1.0
    label_smoothing: Annotated[float, Range(0.0, 0.9)] = 0.0
    head_start: Literal["zero_shot", "linear_probe"] = "zero_shot"
    sampler: Literal["uniform", "class_balanced"] = "uniform"
    checkpoint_every: Annotated[int, Range(1, 1_000_000)] = 40


@dataclass(frozen=True)
class TrainData:
    """Training images and what makes them the model's input."""

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, "n"]
    preprocess: Callable[[Tensor], Tensor]


class TrainState:
    """All that changes while a run trains: weights, optimizer, step. Random draws depend on the step alone."""

    def __init__(self, classifier: Classifier, config: TrainConfig, decays_tower: bool = True):
        self.classifier, self.step = classifier, 0
        names = [(name, p) for name, p in classifier.named_parameters() if p.requires_grad]
        decayed = [p for name, p in names if p.ndim > 1 and (decays_tower or name.startswith("head."))]
        plain = [p for _, p in names if not any(p is q for q in decayed)]
        self.optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}], lr=config.lr)

    def tensors(self) -> dict[str, Tensor]:
        """Returns everything as named tensors, for a checkpoint."""
        saved = {f"model.{k}": v for k, v in self.classifier.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            saved |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
        return saved | {"step": torch.tensor(self.step)}

    def load(self, saved: dict[str, Tensor]) -> None:
        """Goes back to a checkpoint of the same run."""
        self.step = int(saved["step"])
        self.classifier.load_state_dict({k.removeprefix("model."): v for k, v in saved.items() if k.startswith("model.")})
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in saved.items():
            if key.startswith("optimizer."):
                _, index, slot = key.split(".", 2)
                state.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def learning_rate(config: TrainConfig, step: int) -> float:
    """Returns the rate of an update, counted from 0: linear warm-up, then a cosine that ends at 0.

    Example:
        With 10 steps and a warm-up of 2, the peak is reached at the second update and the last one is at 0.

        >>> config = TrainConfig(steps=10, lr=1.0, warmup=0.2)
        >>> [round(learning_rate(config, s), 3) for s in (0, 1, 9)]
        [0.5, 1.0, 0.0]
    """
    warm = min(round(config.warmup * config.steps), config.steps - 1)
    if step < warm:
        return config.lr * (step + 1) / warm
    progress = (step + 1 - max(warm, 1)) / max(1, config.steps - max(warm, 1))
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Trainer:
    """One run of the loop: a classifier, its frozen starting point, data, objective and settings.

    Normalisation layers keep the statistics of the start (the tower stays in eval mode), so that weights can be
    averaged afterwards without recomputing them.

    Args:
        classifier: Trained in place.
        data: Training images, on any device.
        objective: Task loss and regularizer.
        config: Settings of the loop.
        seed: Source of every draw.
    """

    def __init__(self, classifier: Classifier, data: TrainData, objective: Objective, config: TrainConfig, seed: int):
        self.data, self.config, self.seed = data, config, seed
        self.device = next(classifier.parameters()).device
        self.start = copy.deepcopy(classifier).eval().requires_grad_(False)
        classifier.eval().requires_grad_(True)
        decays = objective.regularizer is None or objective.regularizer.declares("DECAYS_ANCHORED", True)
        self.state = TrainState(classifier, config, decays)
        self.sampler = make_sampler(config.sampler, data.labels, config.batch_size, seed)
        self.objective = self._calibrated(objective)

    def _calibrated(self, objective: Objective) -> Objective:
        """Lets the regularizer choose what it left open from starting features of this run's own batches."""
        calibrate = objective.regularizer.declares("calibrate") if objective.regularizer else None
        if calibrate is None:
            return objective
        with torch.no_grad():
            batches = [self.start.encoder(self._draw(step)[0]).float() for step in range(CALIBRATION_BATCHES)]
        return replace(objective, options={**objective.options, **calibrate(batches, objective.options)})

    def _draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns the augmented images and labels of a step."""
        rows = self.sampler(step)
        images = self.data.preprocess(self.data.images[rows].to(self.device))
        return random_crop(images, generator_of("crop", self.seed, step)), self.data.labels[rows].to(self.device)

    def _batch(self, images: Tensor, labels: Tensor) -> Batch:
        """Runs the student, and the frozen start on the same view if the regularizer looks at it."""
        needs, model = self.objective.needs, self.state.classifier
        taps: tuple[Tensor, ...] = ()
        taps_0: tuple[Tensor, ...] = ()
        features_0 = None
        # Half precision in the towers only, and on GPUs only: heads and losses need the digits.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            if "taps" in needs:
                features, taps = model.encoder.with_taps(images)
            else:
                features = model.encoder(images)
            if needs & {"taps", "features_0"}:
                with torch.no_grad():
                    features_0, taps_0 = self.start.encoder.with_taps(images) if "taps" in needs else (self.start.encoder(images), ())
        theta: dict[str, Tensor] = {}
        theta_0: dict[str, Tensor] = {}
        if "theta" in needs:
            theta = dict(model.encoder.named_parameters())
            theta_0 = dict(self.start.encoder.named_parameters())
        return Batch(features, labels, features_0, model.head(features), taps, taps_0, theta, theta_0)

    def steps(self) -> Iterator[StepRecord]:
        """Trains from the current step to the end, yielding after every update.

        Raises:
            UserError: If a term of the loss is not finite; names the step and the term. The weights are those of the last
                good update.
        """
        while self.state.step < self.config.steps:
            begin = time.perf_counter()
            record, batch = self._update()
            extras = self.objective.health(batch) if record.step % 10 == 0 else {}
            yield replace(record, seconds=time.perf_counter() - begin, extras=extras)

    def _check_finite(self, step: int, **terms: Tensor) -> None:
        for term, value in terms.items():
            if not torch.isfinite(value):
                name = term.replace("_", " ")
                raise UserError(f"the {name} is {value.item()} at step {step + 1}; lower lr (now {self.config.lr:g}) or reg_weight and start anew.")

    def _update(self) -> tuple[StepRecord, Batch]:
        step, optimizer = self.state.step, self.state.optimizer
        rate = learning_rate(self.config, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, labels = self._draw(step)
        batch = self._batch(images, labels)
        task_loss, reg_loss = self.objective(batch)
        self._check_finite(step, task_loss=task_loss, regularizer=reg_loss)
        loss = task_loss + reg_loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.state.classifier.parameters(), self.config.clip_norm)
        self._check_finite(step, gradient=norm)  # before the update, so that the weights stay those of the last good one
        optimizer.step()
        self.state.step = step + 1
        return StepRecord(step + 1, loss.item(), task_loss.item(), reg_loss.item(), rate, norm.item(), 0.0), batch
