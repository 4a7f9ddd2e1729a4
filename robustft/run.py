"""One run, from its config to its scores: prepare, train, measure, store. Stops when asked and goes on where it was."""

import copy
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from . import store
from .analysis import Progress, analyse, measure, weights_key
from .curve import wise_curve, wise_rows
from .devices import resolve_device
from .encoder import Backbone
from .evaluate import fit_probe
from .files import write_json
from .heads import Classifier, Head, TextHead, probe_head, zero_shot_head
from .interpolate import recompute_statistics
from .methods import Method, average_rule, check_together, find_method, part_options, train_config
from .moments import keep_step, kept_steps
from .objective import Objective
from .registry import find
from .sources import domains_of, get_dataset, get_encoded, get_train_data
from .train import Trainer
from .types import RunConfig, RunRecord, Score, StepRecord, UserError

STOPPED = 143
"""Exit code of a run that was asked to stop, as a shell reports SIGTERM."""
Report = Callable[[str], None]


class Stopped(Exception):
    """The run was asked to stop; its checkpoint is on disk."""


class _Teller:
    """Tells where a run is, in its status file and in its log, and raises `Stopped` when a stop was asked for."""

    def __init__(self, run_id: str, root: Path, report: Report):
        self.run_id, self.root, self.report = run_id, root, report
        self.stop_asked, self.started, self.stage, self.written = False, time.time(), "", 0.0

    def __call__(self, stage: str, step: int = 0, steps: int = 0) -> None:
        """Records progress; the file is written at most every half second, but for a new stage."""
        if self.stop_asked and stage != "training":
            raise Stopped
        if stage != self.stage:
            self.report(f"{stage} ...")
        if stage != self.stage or step == steps or time.time() - self.written > 0.5:
            store.write_status(self.run_id, self.root, stage=stage, step=step, steps=steps, started=self.started)
            self.written = time.time()
        self.stage = stage


@contextmanager
def _stoppable(tell: _Teller) -> Iterator[None]:
    """Turns SIGTERM and Ctrl-C into a request that the loop sees at its next step."""

    def ask(_signal: int, _frame: object) -> None:
        tell.stop_asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(config: RunConfig, *, root: Path, report: Report = print) -> RunRecord:
    """Carries a run to its end and returns its record; a finished run is returned at once.

    Args:
        config: All that determines the run.
        root: Cache folder.
        report: Receives a line now and then.

    Raises:
        Stopped: If SIGTERM or Ctrl-C came; the run can be resumed by calling this again.
        UserError: If the run cannot be done; its status says why.
    """
    store.check_root(root)
    resolve_device(config.device)  # a device that is not here should leave no failed run behind
    run_id = store.run_id_of(config)
    with store.run_lock(run_id, root):
        if (record := _finished(run_id, root)) is not None:
            return record
        store.begin_run(config, root)
        store.clear_leftovers(run_id, root)
        tell = _Teller(run_id, root, report)
        with _stoppable(tell):
            try:
                return _carry_out(config, run_id, root, tell)
            except Stopped:
                store.write_status(run_id, root, stage="stopped", step=0, steps=0, started=tell.started)
                raise
            except ValueError as error:
                store.write_status(run_id, root, stage="failed", step=0, steps=0, started=tell.started, message=str(error))
                raise


def _finished(run_id: str, root: Path) -> RunRecord | None:
    """Returns a run's record if it is finished and its scores can be read."""
    try:
        record = store.read_run(run_id, root=root)
    except store.RunNotFound:
        return None
    return record if record.is_finished else None


def _carry_out(config: RunConfig, run_id: str, root: Path, tell: _Teller) -> RunRecord:
    tell("loading")
    n_classes = len(get_dataset(config.dataset, domains_of(config.dataset)[0], "train", root).class_names)
    for warning in check_together(config.method, config.options, n_classes):
        tell.report(f"warning: {warning}")
    torch.manual_seed(config.seed)
    device = resolve_device(config.device)
    backbone = load_backbone(config.model, device)
    start = starting_classifier(backbone, find_method(config.method), config, root)
    end = _train(start, backbone, config, run_id, root, tell)
    scores = _measure_all(backbone, start, end, config, root, tell)
    store.write_status(run_id, root, stage="finished", step=1, steps=1, started=tell.started)
    record = store.finish_run(config, scores, root=root)
    store.drop_checkpoint(run_id, root)
    return record


def _measure_all(backbone: Backbone, start: Classifier, end: Classifier, config: RunConfig, root: Path, progress: Progress) -> list[Score]:
    """Measures a trained model in every way that pages show; what is cached is read. Returns the scores, the rest goes to the run's folder."""
    folder = store.run_folder(store.run_id_of(config), root)
    scores = measure(backbone, start, end, config, root, progress)
    moved, details = analyse(backbone, end, config, root, progress)
    write_json(folder / "analysis.json", details)
    write_json(folder / "encoders.json", {"before": backbone.weights_hash, "after": weights_key(end, backbone)})
    if config.curve and not (folder / "wise.json").exists():
        write_json(folder / "wise.json", wise_rows(wise_curve(backbone, start, end, config, scores, root, progress)))
    return [*scores, *moved]


def load_backbone(name: str, device: torch.device) -> Backbone:
    """Returns a backbone by name, its tower on a device."""
    backbone: Backbone = find("backbones", name).function()
    backbone.encoder.to(device)
    backbone.text.to(device)
    return backbone


def starting_classifier(backbone: Backbone, method: Method, config: RunConfig, root: Path) -> Classifier:
    """Returns the model that a run begins from: the foundation model's tower and the head that the method asks for."""
    return Classifier(copy.deepcopy(backbone.encoder), starting_head(backbone, method, config, root)).to(_device_of(backbone)).eval()


def _device_of(backbone: Backbone) -> torch.device:
    return next(backbone.encoder.parameters()).device


def starting_head(backbone: Backbone, method: Method, config: RunConfig, root: Path) -> Head | TextHead:
    """Returns a zero-shot head, a linear probe fitted on the training part only, or a head that the text tower writes."""
    domain = domains_of(config.dataset)[0]
    if config.options.get("head_start", method.defaults.get("head_start")) == "linear_probe":
        encoded = get_encoded(backbone.encoder, backbone.preprocess, backbone.weights_hash, config.dataset, domain, root)
        return probe_head(fit_probe(encoded))
    data = get_dataset(config.dataset, domain, "train", root)
    return (TextHead if method.has_text_head else zero_shot_head)(backbone.text, data.class_names, data.templates)


def _train(start: Classifier, backbone: Backbone, config: RunConfig, run_id: str, root: Path, tell: _Teller) -> Classifier:
    """Returns the trained model: read from disk if the run got that far before, else trained from its last checkpoint."""
    end = copy.deepcopy(start)
    weights = store.load_weights(run_id, "theta_1", root=root)
    if weights is None and find_method(config.method).trains != "none":
        trainer = make_trainer(end, backbone, config, root)
        _loop(trainer, config, root, tell, lambda step: keep_step(end, step, backbone, config, root))
        end = finished_classifier(trainer, config)
    if weights is None:
        store.save_weights(run_id, "theta_1", end.state_dict(), root)
    else:
        end.load_state_dict(weights)
    return end.eval()


def make_trainer(classifier: Classifier, backbone: Backbone, config: RunConfig, root: Path) -> Trainer:
    """Puts data, objective and settings of a run together, and prepares the classifier for what shall train of it."""
    method, settings, options = find_method(config.method), train_config(config.options), config.options
    dataset = get_dataset(config.dataset, domains_of(config.dataset)[0], "train", root)
    data = get_train_data(config.dataset, backbone.preprocess, root, with_val=settings.patience > 0)
    teacher = Classifier(backbone.encoder, zero_shot_head(backbone.text, dataset.class_names, dataset.templates)).to(_device_of(backbone))
    tune(classifier, method, options, config.seed)
    return Trainer(classifier, teacher, data, make_objective(method, options), settings, config.seed, average_rule(method, options))


def tune(classifier: Classifier, method: Method, options: Mapping[str, Any], seed: int) -> None:
    """Freezes a classifier but for what a method trains of it."""
    entry = method.parts["tuning"]
    entry.function(classifier.requires_grad_(False), seed, **part_options(entry, options))


def make_objective(method: Method, options: Mapping[str, Any]) -> Objective:
    """Returns the task loss and the regularizer of a method."""
    task_loss, regularizer = method.parts["task_losses"], method.parts.get("regularizers")
    return Objective(regularizer, part_options(regularizer, options), task_loss, part_options(task_loss, options))


def finished_classifier(trainer: Trainer, config: RunConfig) -> Classifier:
    """Returns the model that training came to, its weights under the names that they started with."""
    method, end, result = find_method(config.method), trainer.state.classifier, trainer.result()
    # An average that came out as the start or as the last weights has statistics that fit.
    ends = (trainer.teacher.model.encoder.state_dict(), trainer.state.classifier.encoder.state_dict())
    is_between = method.average is not None and all(any(not torch.equal(result[f"encoder.{name}"], value) for name, value in theta.items()) for theta in ends)
    end.load_state_dict(result)
    finish = method.parts["tuning"].declares("finish")
    if finish is not None:
        finish(end)
    if is_between:
        recompute_statistics(end.encoder, trainer.data)
    return end


def _loop(trainer: Trainer, config: RunConfig, root: Path, tell: _Teller, keep: Callable[[int], None]) -> None:
    """Trains to the end, writing history, checkpoints and what it keeps on its way; on a stop, saves and raises."""
    settings, run_id = train_config(config.options), store.run_id_of(config)
    checkpoint = store.load_weights(run_id, "checkpoint", root=root)
    if checkpoint is not None:
        trainer.state.load(checkpoint)
        tell.report(f"resuming after step {trainer.state.step}")
    store.cut_history(run_id, trainer.state.step, root)
    tell("training", trainer.state.step, settings.steps)
    if trainer.objective.regularizer:
        tell.report(f"regularizer {trainer.objective.regularizer.name} {dict(trainer.objective.options)}")
    pending: list[StepRecord] = []
    for record in trainer.steps():
        pending.append(replace(record, seconds=round(record.seconds, 4)))
        tell("training", record.step, settings.steps)
        if record.step in kept_steps(settings.steps):
            keep(record.step)
        is_due = record.step % settings.checkpoint_every == 0 or tell.stop_asked
        if is_due or len(pending) == 5 or record.step == settings.steps:
            store.append_history(run_id, pending, root)
            pending.clear()
        if is_due:
            store.save_weights(run_id, "checkpoint", trainer.state.tensors(), root)
        if record.step % 20 == 0 or record.step == settings.steps:
            tell.report(f"step {record.step}/{settings.steps} loss {record.loss:.4f} task {record.task_loss:.4f} regularizer {record.reg_loss:.4f}")
        if tell.stop_asked:
            raise Stopped


def remeasure(run_id: str, root: Path, report: Report = print) -> list[Score]:
    """Measures a finished run again from its weights and what is cached, and returns the scores; those on disk stay, since runs never change.

    Features, graphs, answers and the curve that were cleared are there again afterwards.

    Raises:
        UserError: If the run has no weights yet.
    """
    record = store.read_run(run_id, root=root)
    weights = store.load_weights(run_id, "theta_1", root=root)
    if weights is None or not record.is_finished:
        raise UserError(f"run {run_id} is not finished; resume it first.")
    config, device = record.config, resolve_device(record.config.device)
    backbone = load_backbone(config.model, device)
    start = starting_classifier(backbone, find_method(config.method), config, root)
    end = copy.deepcopy(start)
    end.load_state_dict(weights)
    return _measure_all(backbone, start, end.to(device).eval(), config, root, lambda stage, step, steps: report(f"{stage} {step}/{steps}"))
