"""One run, from its config to its scores: prepare, train, measure, store. Stops when asked and goes on where it was."""

import copy
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from . import store
from .analysis import measure, weights_key, wise_curve, wise_rows
from .devices import resolve_device
from .encoder import Backbone
from .evaluate import fit_probe
from .files import write_json
from .heads import Classifier, Head, probe_head, zero_shot_head
from .methods import Method, find_method, regularizer_of, regularizer_options, train_config
from .objective import Objective
from .registry import find
from .sources import domains_of, get_dataset, get_encoded
from .train import TrainConfig, TrainData, Trainer
from .types import RunConfig, RunRecord, StepRecord, UserError

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
    torch.manual_seed(config.seed)
    device = resolve_device(config.device)
    backbone = load_backbone(config.model, device)
    start = starting_classifier(backbone, find_method(config.method), config, root).to(device)
    end = _train(start, backbone, config, run_id, root, tell)
    scores = measure(backbone, end, config, root, tell)
    keys = {"before": backbone.weights_hash, "after": weights_key(end, backbone)}
    write_json(store.run_folder(run_id, root) / "encoders.json", keys)
    curve = wise_curve(backbone, start, end, config, scores, root, tell)
    write_json(store.run_folder(run_id, root) / "wise.json", wise_rows(curve))
    store.write_status(run_id, root, stage="finished", step=1, steps=1, started=tell.started)
    record = store.finish_run(config, scores, root=root)
    store.drop_checkpoint(run_id, root)
    return record


def load_backbone(name: str, device: torch.device) -> Backbone:
    """Returns a backbone by name, its tower on a device."""
    backbone: Backbone = find("backbones", name).function()
    backbone.encoder.to(device)
    return backbone


def starting_classifier(backbone: Backbone, method: Method, config: RunConfig, root: Path) -> Classifier:
    """Returns the model that a run begins from: the foundation model's tower and the head that the method asks for."""
    head_start = config.options.get("head_start", method.defaults.get("head_start", "zero_shot"))
    return Classifier(copy.deepcopy(backbone.encoder), starting_head(backbone, head_start, config.dataset, root))


def starting_head(backbone: Backbone, head_start: str, dataset: str, root: Path) -> Head:
    """Returns a zero-shot head, or a linear probe fitted on the training part only."""
    domain = domains_of(dataset)[0]
    if head_start == "linear_probe":
        encoded = get_encoded(backbone.encoder, backbone.preprocess, backbone.weights_hash, dataset, domain, root)
        return probe_head(fit_probe(encoded))
    data = get_dataset(dataset, domain, "train", root)
    return zero_shot_head(backbone, data.class_names, data.templates)


def _train(start: Classifier, backbone: Backbone, config: RunConfig, run_id: str, root: Path, tell: _Teller) -> Classifier:
    """Returns the trained model: read from disk if the run got that far before, else trained from its last checkpoint."""
    end = copy.deepcopy(start)
    weights = store.load_weights(run_id, "theta_1", root=root)
    if weights is not None:
        end.load_state_dict(weights)
        return end.eval()
    if find_method(config.method).trains != "none":
        _loop(make_trainer(end, backbone, config, root), train_config(config.options), run_id, root, tell)
    store.save_weights(run_id, "theta_1", end.state_dict(), root)
    return end.eval()


def make_trainer(classifier: Classifier, backbone: Backbone, config: RunConfig, root: Path) -> Trainer:
    """Puts data, objective and settings of a run together."""
    dataset = get_dataset(config.dataset, domains_of(config.dataset)[0], "train", root)
    data = TrainData(torch.as_tensor(dataset.images), torch.as_tensor(dataset.labels), backbone.preprocess)
    settings = train_config(config.options)
    entry = regularizer_of(find_method(config.method))
    objective = Objective(entry, regularizer_options(config.method, config.options), settings.label_smoothing)
    return Trainer(classifier, data, objective, settings, config.seed)


def _loop(trainer: Trainer, settings: TrainConfig, run_id: str, root: Path, tell: _Teller) -> None:
    """Trains to the end, writing history and checkpoints; on a stop, saves and raises."""
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


def remeasure(run_id: str, root: Path, report: Report = print) -> None:
    """Computes again what of a finished run's features is no longer cached; its scores stay, since runs never change.

    Raises:
        UserError: If the run has no weights yet.
    """
    record = store.read_run(run_id, root=root)
    weights = store.load_weights(run_id, "theta_1", root=root)
    if weights is None or not record.is_finished:
        raise UserError(f"run {run_id} is not finished; resume it first.")
    backbone = load_backbone(record.config.model, resolve_device(record.config.device))
    end = starting_classifier(backbone, find_method(record.config.method), record.config, root)
    end.load_state_dict(weights)
    measure(backbone, end.to(resolve_device(record.config.device)).eval(), record.config, root, lambda stage, step, steps: report(f"{stage} {step}/{steps}"))
