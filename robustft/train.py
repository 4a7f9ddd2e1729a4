"""The only training loop: a generator that yields one record a step."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from .heads import Classifier
from .objective import Objective
from .sampling import class_similarities, make_sampler, random_crop
from .seeds import generator_of
from .state import TrainState
from .teacher import Teacher
from .types import Batch, Range, StepRecord, TrainData, UserError

CALIBRATION_BATCHES = 20
TEACHER_NEEDS = frozenset({"taps", "features_0", "logits_0"})
Average = Callable[[int, int], float]
"""From step (from 1) and steps of the run to the share that the newest weights get in the average."""


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
        head_start: Where the head begins: class names, or a linear probe on starting features.
        sampler: How a batch is drawn; class_balanced takes 16 classes x 4 at 64, hard_classes 16 that look alike.
        teacher_cache: Starting features of each batch's own view (none), or of each image's centre crop, computed once.
        patience: Validations without a gain, one a checkpoint, after which training ends with its best weights; 0 is never.
        checkpoint_every: Updates between two checkpoints.
    """

    steps: Annotated[int, Range(1, 1_000_000)] = 120
    batch_size: Annotated[int, Range(2, 8192)] = 64
    lr: Annotated[float, Range(1e-8, 1.0)] = 1e-3
    weight_decay: Annotated[float, Range(0.0, 1.0)] = 0.1
    warmup: Annotated[float, Range(0.0, 0.9)] = 0.1
    clip_norm: Annotated[float, Range(1e-4, 1e4)] = 1.0
    head_start: Literal["zero_shot", "linear_probe"] = "zero_shot"
    sampler: Literal["uniform", "class_balanced", "hard_classes"] = "uniform"
    teacher_cache: Literal["none", "center_crop"] = "none"
    patience: Annotated[int, Range(0, 1000)] = 0
    checkpoint_every: Annotated[int, Range(1, 1_000_000)] = 40


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
        classifier: Trained in place, as far as it requires gradients.
        teacher: The start: its encoder, with the zero-shot head.
        data: Training images, on any device; validation images if there is patience.
        objective: Task loss and regularizer.
        config: Settings of the loop.
        seed: Source of every draw.
        average: Rule by which weights are averaged along the run; None keeps the last ones.
    """

    def __init__(
        self, classifier: Classifier, teacher: Classifier, data: TrainData, objective: Objective, config: TrainConfig, seed: int, average: Average | None = None
    ):
        self.data, self.config, self.seed, self.average = data, config, seed, average
        self.device = next(classifier.parameters()).device
        classifier.eval()
        self.teacher = self._make_teacher(teacher.eval().requires_grad_(False), objective.needs)
        self.sampler = self._make_sampler()
        self.objective = self._begun(objective)
        self.state = TrainState(
            classifier,
            lr=config.lr,
            weight_decay=config.weight_decay,
            decays_tower=objective.regularizer is None or objective.regularizer.declares("DECAYS_ANCHORED", True),
            memory=self.objective.memory,
            is_averaged=average is not None,
        )
        has_theta = "theta" in self.objective.needs
        self.theta = dict(classifier.encoder.named_parameters()) if has_theta else {}
        self.theta_0 = dict(teacher.encoder.named_parameters()) if has_theta else {}

    def _make_teacher(self, model: Classifier, needs: frozenset[str]) -> Teacher:
        teacher = Teacher(model, with_taps="taps" in needs)
        is_cached = self.config.teacher_cache == "center_crop" and bool(needs & TEACHER_NEEDS)
        return teacher.remembering(self.data, self.device) if is_cached else teacher

    def _make_sampler(self) -> Callable[[int], Tensor]:
        similarities = None
        if self.config.sampler == "hard_classes":
            known = self.teacher if self.teacher.cached else Teacher(self.teacher.model).remembering(self.data, self.device)
            assert known.cached is not None
            similarities = class_similarities(known.cached.features, self.data.labels)
        return make_sampler(self.config.sampler, self.data.labels, self.config.batch_size, self.seed, similarities)

    def _begun(self, objective: Objective) -> Objective:
        """Gives the regularizer its memory, and lets it choose what it left open from batches of this run's own sampler."""
        if objective.regularizer is None:
            return objective
        begin, calibrate = objective.regularizer.declares("init"), objective.regularizer.declares("calibrate")
        if begin is not None:
            objective = replace(objective, memory=begin(self.teacher.model, self.data, objective.options, self.seed).to(self.device))
        if calibrate is not None:
            batches = [self.teacher(rows, images).features for rows, images in map(self._draw, range(CALIBRATION_BATCHES))]
            objective = replace(objective, options={**objective.options, **calibrate(batches, objective.options)})
        return objective

    def _draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns the rows of a step and their augmented images."""
        rows = self.sampler(step)
        return rows, random_crop(self.data.inputs(rows, self.device), generator_of("crop", self.seed, step))

    def _batch(self, step: int) -> Batch:
        """Runs the student, and the frozen start on the same view if anything looks at it."""
        rows, images = self._draw(step)
        labels, draws = self.data.labels[rows].to(self.device), generator_of("captions", self.seed, step)
        needs, model = self.objective.needs, self.state.classifier
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            features, taps = model.encoder.with_taps(images) if "taps" in needs else (model.encoder(images), ())
        start = self.teacher(rows, images) if needs & TEACHER_NEEDS else None
        class_weights = model.head.class_weights(draws) if needs & {"logits", "class_weights"} else None
        return Batch(
            features,
            labels,
            features_0=start.features if start else None,
            logits=None if class_weights is None else model.head.logits(features, class_weights),
            logits_0=start.logits if start else None,
            class_weights=class_weights,
            captions=model.head.captions(labels, draws) if "captions" in needs else None,
            taps=taps,
            taps_0=start.taps if start else (),
            theta=self.theta,
            theta_0=self.theta_0,
            step=step,
        )

    def steps(self) -> Iterator[StepRecord]:
        """Trains from the current step to the end, yielding after every update.

        Raises:
            UserError: If a term of the loss is not finite; names the step and the term. The weights are those of the last
                good update.
        """
        while self.state.step < self.config.steps and not self._is_out_of_patience():
            begin = time.perf_counter()
            record, batch = self._update()
            extras = self.objective.health(batch) if record.step % 10 == 0 else {}
            extras |= self._validated(record.step)
            yield replace(record, seconds=time.perf_counter() - begin, extras=extras)

    def result(self) -> dict[str, Tensor]:
        """Returns the weights that training came to: the best on validation if there is patience, else the averaged or the last."""
        return self.state.best or self.state.result()

    def _is_out_of_patience(self) -> bool:
        return self.config.patience > 0 and self.state.stale >= self.config.patience

    def _validated(self, step: int) -> dict[str, float]:
        """Measures the weights so far on validation images, if there is patience and a checkpoint is due."""
        if not self.config.patience or (step % self.config.checkpoint_every and step != self.config.steps):
            return {}
        accuracy = self._validation_accuracy()
        self.state.keep_if_best(accuracy)
        return {"val_accuracy": accuracy}

    @torch.no_grad()
    def _validation_accuracy(self) -> float:
        images, labels = self.data.val_images, self.data.val_labels
        if images is None or labels is None or not len(labels):
            raise UserError("patience needs validation images and this task has none; set patience=0.")
        model, here = self.state.classifier, {name: value.clone() for name, value in self.state.classifier.state_dict().items()}
        model.load_state_dict(self.state.result())
        logits = torch.cat([model(self.data.preprocess(chunk.to(self.device))) for chunk in images.split(256)])
        model.load_state_dict(here)
        return (logits.argmax(1).cpu() == labels).double().mean().item()

    def _check_finite(self, step: int, **terms: Tensor) -> None:
        for term, value in terms.items():
            if not torch.isfinite(value):
                name = term.replace("_", " ")
                raise UserError(f"the {name} is {value.item()} at step {step + 1}; lower lr (now {self.config.lr:g}) or reg_weight and start anew.")

    def _check_reached(self) -> None:
        """Makes sure that the loss reaches every weight that is to be trained: a silent one would look trained and not be."""
        silent = [name for name, weight in self.state.classifier.named_parameters() if weight.requires_grad and weight.grad is None]
        if silent:
            raise UserError(f"{len(silent)} trained weights get no gradient, {silent[0]!r} first; this method does not fit this tower, choose another.")

    def _update(self) -> tuple[StepRecord, Batch]:
        step, state = self.state.step, self.state
        rate = learning_rate(self.config, step)
        state.set_rate(rate)
        batch = self._batch(step)
        task_loss, reg_loss = self.objective(batch)
        self._check_finite(step, task_loss=task_loss, regularizer=reg_loss)
        loss = task_loss + reg_loss
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if step == 0:
            self._check_reached()
        norm = nn.utils.clip_grad_norm_(state.classifier.parameters(), self.config.clip_norm)
        self._check_finite(step, gradient=norm)  # before the update, so that the weights stay those of the last good one
        state.optimizer.step()
        state.step = step + 1
        if self.average is not None:
            state.average_in(self.average(step + 1, self.config.steps))
        return StepRecord(step + 1, loss.item(), task_loss.item(), reg_loss.item(), rate, norm.item(), 0.0), batch
