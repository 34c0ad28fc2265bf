"""ZOTrainer: the Trainer's own loop around ZOOptimizer's own steps, and nothing lost between."""

import copy
import errno
import functools
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback, default_data_collator

import zoopt
from zoopt.cli import main
from zoopt.integrations.trainer import checks


def theta(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def training_logs(trainer):
    return [entry for entry in trainer.state.log_history if "projected_gradient" in entry]


def correct(eval_pred, compute_result=True):
    scores, labels = eval_pred.predictions, eval_pred.label_ids
    return {"share": float(np.mean(scores.argmax(-1) == labels)), "seen": float(len(labels))}


def separation(eval_pred):
    """By how much the right class is ahead; a smooth number, so that it tells probes apart."""
    scores, labels = eval_pred.predictions, eval_pred.label_ids
    ahead = (scores[:, 1] - scores[:, 0]) * np.where(labels == 1, 1, -1)
    return {"separation": float(ahead.mean()), "examples": len(labels)}


class Looking(TrainerCallback):
    """Notes the weights at an event."""

    def __init__(self, *events):
        self.seen = {event: [] for event in events}
        for event in events:
            setattr(self, event, self._noting(event))

    def _noting(self, event):
        return lambda args, state, control, model, **_: self.seen[event].append(theta(model))


# The steps are ZOOptimizer's


@pytest.mark.parametrize("engine", ["inplace", "overlay", "copy"])
def test_it_steps_as_a_loop_of_ones_own_does(encoder, sentences, make_trainer, engine):
    batches = []

    def collate(rows):
        batches.append(default_data_collator(rows))
        return batches[-1]

    zo = zoopt.NSPSA(eps=1e-2, n=2, direction="rademacher")
    trainer = make_trainer(
        encoder, sentences, zo=zo, engine=engine, seed=5, weight_decay=0.1, data_collator=collate
    )
    trainer.train()

    model = make_trainer(encoder, sentences).model
    optimizer = zoopt.ZOOptimizer(
        model, lr=1e-2, estimator=zo, engine=engine, seed=5, weight_decay=0.1
    )
    for step, batch in enumerate(batches[:3]):
        value = optimizer.step(lambda batch=batch: model(**batch).loss)
        assert training_logs(trainer)[step]["loss"] == pytest.approx(value, rel=1e-6)
    assert torch.equal(theta(trainer.model), theta(model))
    assert not torch.equal(theta(model), theta(encoder))


def test_the_schedule_and_the_groups_rates_are_the_arguments(encoder, sentences, make_trainer):
    rates = []

    class Rates(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
            rates.append([group["lr"] for group in optimizer.param_groups])

    params = {"classifier.*": {"lr": 0.5, "eps": 0.1}, "*LayerNorm*": {}}
    trainer = make_trainer(
        encoder, sentences, params=params, lr_scheduler_type="linear", callbacks=[Rates()]
    )
    trainer.train()
    assert [rate for rate, _ in rates] == pytest.approx([0.5, 1 / 3, 1 / 6])
    assert [rate for _, rate in rates] == pytest.approx([1e-2, 2e-2 / 3, 1e-2 / 3])
    tuned = {slot.name for slot in trainer.zo_optimizer.slots}
    assert all("classifier" in name or "LayerNorm" in name for name in tuned)


def test_it_learns(encoder, sentences, make_trainer):
    trainer = make_trainer(
        encoder,
        sentences,
        zo=zoopt.MeZO(eps=1e-2, direction="rademacher", n=4),
        learning_rate=3e-2,
        max_steps=60,
        per_device_train_batch_size=16,
        eval_dataset=sentences,
        logging_steps=60,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 0.05


# Gradient accumulation


def summed_loss(outputs, labels, num_items_in_batch):
    losses = torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum")
    return losses / num_items_in_batch


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("decoder", {}),
        ("encoder", {}),
        ("encoder", {"compute_loss_func": summed_loss}),
        ("encoder", {"label_smoothing_factor": 0.1}),
        ("encoder", {"compute_metrics": separation, "objective": "compute_metrics"}),
    ],
)
def test_micro_batches_count_as_the_batch_that_they_make(
    encoder, decoder, sentences, texts, make_trainer, kind, options
):
    model, rows = (decoder, texts) if kind == "decoder" else (encoder, sentences)
    if "objective" in options:
        options = {**options, "metric_for_best_model": "separation"}

    def run(size, batches):
        trainer = make_trainer(
            model,
            rows,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=batches,
            max_steps=1,
            **options,
        )
        trainer.train()
        return training_logs(trainer)[0]

    whole, parts = run(16, 1), run(4, 4)
    name = "separation" if "objective" in options else "loss"
    assert parts[name] == pytest.approx(whole[name], rel=1e-5)
    assert parts["projected_gradient"] == pytest.approx(whole["projected_gradient"], rel=1e-2)
    assert parts["forwards"] == whole["forwards"] == 2


def test_the_last_update_of_an_epoch_takes_the_micro_batches_that_are_left(
    encoder, sentences, make_trainer
):
    trainer = make_trainer(
        encoder,
        sentences[:12],
        max_steps=-1,
        num_train_epochs=2,
        gradient_accumulation_steps=2,
        compute_metrics=separation,
        objective=zoopt.metric(
            separation, "compute_metrics", key="examples", higher_is_better=True
        ),
    )
    trainer.train()
    assert [entry["examples"] for entry in training_logs(trainer)] == [8, 4, 8, 4]


def test_a_micro_batch_without_labels_counts_nothing(decoder, texts, make_trainer):
    silent = [{**row, "labels": torch.full((6,), -100)} for row in texts[:4]]
    whole = make_trainer(
        decoder, texts, max_steps=1, data_collator=lambda rows: default_data_collator(texts[4:8])
    )
    whole.train()
    turns = iter([silent, texts[4:8]])
    parts = make_trainer(
        decoder,
        texts,
        max_steps=1,
        gradient_accumulation_steps=2,
        data_collator=lambda rows: default_data_collator(next(turns, silent)),
    )
    parts.train()
    assert training_logs(parts)[0]["loss"] == pytest.approx(training_logs(whole)[0]["loss"])


# Objectives


def test_an_error_is_not_tuned_upwards(encoder, sentences, make_trainer):
    options = {
        "objective": "compute_metrics",
        "compute_metrics": lambda said: {"error_rate": 0.5},
        "metric_for_best_model": "error_rate",
        "eval_dataset": sentences,
    }
    with pytest.raises(ValueError, match="greater_is_better=False"):
        make_trainer(encoder, sentences, **options)
    trainer = make_trainer(encoder, sentences, greater_is_better=False, **options)
    assert not trainer.zo_objective.higher_is_better


def test_compute_metrics_is_asked_once_a_probe_and_maximized(encoder, sentences, make_trainer):
    asked = []

    def counted(eval_pred):
        asked.append(len(eval_pred.label_ids))
        return separation(eval_pred)

    trainer = make_trainer(
        encoder,
        sentences,
        objective="compute_metrics",
        compute_metrics=counted,
        metric_for_best_model="eval_separation",
        gradient_accumulation_steps=2,
        zo=zoopt.MeZO(eps=1e-2, n=4),
        learning_rate=2e-2,
        max_steps=20,
        eval_dataset=sentences,
    )
    before = trainer.evaluate()["eval_separation"]
    asked.clear()
    trainer.train()
    assert asked == [8] * (20 * 8)
    assert trainer.evaluate()["eval_separation"] > before
    assert "loss" not in training_logs(trainer)[0]


@pytest.mark.parametrize(
    "objective", ["accuracy", "cross_entropy", "accuracy + 2 * expected_accuracy", "neg_log_loss"]
)
def test_an_objective_by_name_has_the_evaluations_predictions(
    encoder, sentences, make_trainer, objective
):
    told = objective if objective != "neg_log_loss" else zoopt.metric("neg_log_loss")
    trainer = make_trainer(
        encoder,
        sentences,
        objective=told,
        zo=zoopt.MeZO(eps=1e-9),
        learning_rate=0.0,
        max_steps=1,
        per_device_train_batch_size=16,
    )
    trainer.train()
    predicted = trainer.predict(sentences)
    scores, labels = predicted.predictions.astype(np.float64), predicted.label_ids
    chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    expected = {
        "accuracy": np.mean(scores.argmax(1) == labels),
        "cross_entropy": -np.log(chances[range(16), labels]).mean(),
        "neg_log_loss": np.log(chances[range(16), labels]).mean(),
        "accuracy + 2 * expected_accuracy": np.mean(scores.argmax(1) == labels)
        + 2 * chances[range(16), labels].mean(),
    }[objective]
    assert training_logs(trainer)[0][objective] == pytest.approx(expected, rel=1e-5)


def test_a_regression_has_values(encoder, sentences, make_trainer):
    model = type(encoder)(
        type(encoder.config)(**{**encoder.config.to_dict(), "id2label": {0: "value"}})
    )
    rows = [{**row, "labels": float(row["labels"])} for row in sentences]
    trainer = make_trainer(
        model,
        rows,
        objective="mse",
        zo=zoopt.MeZO(eps=1e-6),
        learning_rate=0.0,
        max_steps=1,
        per_device_train_batch_size=16,
    )
    trainer.train()
    expected = trainer.evaluate(rows)["eval_loss"]
    assert training_logs(trainer)[0]["mse"] == pytest.approx(expected, rel=1e-4)


def test_several_probes_share_a_forward(encoder, sentences, make_trainer):
    def run(engine):
        trainer = make_trainer(
            encoder,
            sentences,
            objective="cross_entropy",
            zo=zoopt.NSPSA(eps=1e-2, n=4),
            direction="lowrank",
            engine=engine,
            gradient_accumulation_steps=2,
        )
        trainer.train()
        return training_logs(trainer)

    for together, alone in zip(run("batched"), run("copy"), strict=True):
        assert together["cross_entropy"] == pytest.approx(alone["cross_entropy"], rel=1e-4)
        assert together["projected_gradient"] == pytest.approx(
            alone["projected_gradient"], rel=1e-2
        )


# What a user of the Trainer has


def test_a_resumed_run_ends_as_the_uninterrupted_one(encoder, sentences, make_trainer, tmp_path):
    settings = {
        "engine": "inplace",
        "max_steps": 5,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": 3,
        "lr_scheduler_type": "cosine",
    }
    whole = make_trainer(encoder, sentences, **settings)
    whole.train()
    resumed = make_trainer(encoder, sentences, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    assert torch.equal(theta(resumed.model), theta(whole.model))
    for mine, theirs in zip(training_logs(resumed)[3:], training_logs(whole)[3:], strict=True):
        assert mine == theirs
    assert whole.zo_optimizer.steps == resumed.zo_optimizer.steps == 5


def test_a_killed_run_goes_on_from_its_last_checkpoint(encoder, sentences, make_trainer):
    class Killed(Exception):
        pass

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 3:
                raise Killed

    settings = {"max_steps": 5, "engine": "overlay", "update": "momentum"}
    whole = make_trainer(encoder, sentences, **settings)
    whole.train()
    settings |= {"save_strategy": "steps", "save_steps": 2}
    with pytest.raises(Killed):
        make_trainer(encoder, sentences, **settings, callbacks=[Kill()]).train()
    resumed = make_trainer(encoder, sentences, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert torch.equal(theta(resumed.model), theta(whole.model))


def test_weights_alone_go_on_along_other_directions(encoder, sentences, make_trainer, tmp_path):
    settings = {
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_only_model": True,
        "engine": "inplace",
    }
    whole = make_trainer(encoder, sentences, **settings)
    whole.train()
    resumed = make_trainer(encoder, sentences, **settings)
    resumed.train(str(tmp_path / "out" / "checkpoint-2"))
    assert resumed.zo_optimizer.steps == 4
    assert torch.equal(theta(resumed.model), theta(whole.model))


def test_resuming_with_another_estimator_says_what_counts(
    encoder, sentences, make_trainer, tmp_path, caplog
):
    make_trainer(encoder, sentences, zo=zoopt.MeZO(eps=1e-2), save_strategy="steps").train()
    where = str(tmp_path / "out" / "checkpoint-3")
    caplog.clear()
    make_trainer(encoder, sentences, zo=zoopt.MeZO(eps=1e-2)).train(where)
    assert "other settings" not in caplog.text

    class Set(TrainerCallback):
        def on_train_begin(self, args, state, control, optimizer, **_):
            optimizer.param_groups[0]["eps"] = 1e-4

    zo = zoopt.NSPSA(eps=1e-4, n=4)
    trainer = make_trainer(encoder, sentences, zo=zo, max_steps=4, callbacks=[Set()])
    trainer.train(where)
    assert "eps is 0.01, the saved run's, not 0.0001" in caplog.text
    assert "n is 4, as given; the saved run had 1" in caplog.text
    assert trainer.zo_optimizer.param_groups[0]["eps"] == 1e-4, "as the warning says"


def test_the_optimizers_checkpoint_has_no_state_of_the_models_size(
    encoder, sentences, make_trainer, tmp_path
):
    trainer = make_trainer(encoder, sentences, save_strategy="steps", save_steps=3)
    trainer.train()
    saved = torch.load(tmp_path / "out" / "checkpoint-3" / "optimizer.pt", weights_only=True)
    assert saved["zoopt"]["steps"] == 3
    assert saved["state"] == {}


def test_the_best_model_is_loaded_and_early_stopping_stops(encoder, sentences, make_trainer):
    trainer = make_trainer(
        encoder,
        sentences,
        learning_rate=1.0,  # every step makes it worse
        max_steps=10,
        eval_dataset=sentences,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert trainer.state.global_step == losses.index(min(losses)) + 3 < 10
    assert trainer.evaluate()["eval_loss"] == min(losses)


def test_a_saved_model_loads_as_it_was(encoder, sentences, make_trainer, tmp_path):
    trainer = make_trainer(encoder, sentences)
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    loaded = type(encoder).from_pretrained(tmp_path / "saved")
    assert torch.equal(theta(loaded), theta(trainer.model))


def test_training_again_goes_on_and_a_model_init_begins_anew(encoder, sentences, make_trainer):
    trainer = make_trainer(encoder, sentences)
    trainer.train()
    trainer.train()
    assert trainer.zo_optimizer.steps == 6, "no direction is drawn twice"
    fresh = make_trainer(None, sentences, model_init=lambda: type(encoder)(encoder.config))
    fresh.train()
    fresh.train()
    assert fresh.zo_optimizer.steps == 3


def test_the_logs_tell_what_the_probes_say(encoder, sentences, make_trainer):
    trainer = make_trainer(encoder, sentences, zo=zoopt.NSPSA(n=3), logging_steps=3)
    trainer.train()
    (entry,) = training_logs(trainer)
    assert entry["forwards"] == 3 * 6
    assert entry["silent"] == 0.0
    assert entry["projected_gradient"] > 0
    assert "grad_norm" not in entry


def test_floating_point_operations_are_the_forwards(encoder, sentences, make_trainer):
    trainer = make_trainer(encoder, sentences, zo=zoopt.NSPSA(n=3))
    trainer.train()
    tokens, size = 3 * 4 * 6, encoder.num_parameters(exclude_embeddings=True)
    assert trainer.state.total_flos == 2 * tokens * size * 6


def test_tensorboard_has_them(encoder, sentences, make_trainer, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    make_trainer(encoder, sentences, report_to="tensorboard").train()
    events = accumulator.EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    told = set(events.Tags()["scalars"])
    assert {"train/loss", "train/projected_gradient", "train/silent", "train/forwards"} <= told


# Nothing but forwards, and θ as it should be whoever looks


def test_no_autograd_anywhere(encoder, sentences, make_trainer, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a backward pass")

    for owner, name in ((torch.Tensor, "backward"), (torch.autograd, "backward")):
        monkeypatch.setattr(owner, name, refuse)
    trainer = make_trainer(encoder, sentences, gradient_accumulation_steps=2)
    outputs = []
    forward = trainer.model.forward

    @functools.wraps(forward)
    def watched(*args, **kwargs):
        outputs.append(forward(*args, **kwargs))
        return outputs[-1]

    monkeypatch.setattr(trainer.model, "forward", watched)
    trainer.train()
    assert len(outputs) == 3 * 2 * 2
    assert all(output.loss.grad_fn is None is output.logits.grad_fn for output in outputs)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_callbacks_see_settled_weights(encoder, sentences, make_trainer):
    looking = Looking("on_step_begin", "on_pre_optimizer_step", "on_step_end")
    make_trainer(encoder, sentences, engine="inplace", callbacks=[looking]).train()
    began, estimated, ended = looking.seen.values()
    for begin, estimate in zip(began, estimated, strict=True):
        assert (begin - estimate).abs().max() < 1e-6  # ε|z| is a thousand times that
    for end, begin in zip(ended, began[1:], strict=False):
        assert torch.equal(end, begin)


def test_an_interruption_before_the_update_leaves_no_probe(
    encoder, sentences, make_trainer, monkeypatch
):
    trainer = make_trainer(encoder, sentences, engine="inplace")

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert (theta(trainer.model) - theta(encoder)).abs().max() < 1e-6


def test_dropout_is_off_in_probes_and_modes_are_kept(encoder, sentences, make_trainer):
    modes = []

    def loss(outputs, labels, num_items_in_batch):
        modes.append(trainer.model.training)
        return summed_loss(outputs, labels, num_items_in_batch)

    trainer = make_trainer(encoder, sentences, compute_loss_func=loss)
    trainer.train()
    assert not any(modes)
    assert trainer.model.training


def test_bf16_autocast_perturbs_alike_in_every_engine(encoder, sentences, make_trainer):
    def run(engine):
        trainer = make_trainer(
            encoder, sentences, engine=engine, bf16=True, max_steps=1, zo=zoopt.MeZO(eps=1e-1)
        )
        trainer.train()
        return training_logs(trainer)[0]

    assert run("overlay") == run("copy")


def test_bf16_weights_are_tuned_by_the_overlay(encoder, sentences, make_trainer):
    trainer = make_trainer(
        encoder.to(torch.bfloat16), sentences, zo=zoopt.NSPSA(eps=1e-2), learning_rate=0.0
    )
    encoder.to(torch.float32)
    before = theta(trainer.model).clone()
    with pytest.warns(UserWarning, match="value is torch.bfloat16"):  # transformers' own loss
        trainer.train()
    assert trainer.zo_optimizer.engine.name == "overlay"
    assert torch.equal(theta(trainer.model), before)


# The log


LOGGED = {
    "gradient_accumulation_steps": 2,
    "weight_decay": 0.1,
    "lr_scheduler_type": "linear",
    "max_steps": 5,
    "save_strategy": "steps",
    "save_steps": 2,
    "update": "momentum",
}


def logged(tmp_path):
    return zoopt.trajectory.read(tmp_path / "out" / "trajectory.jsonl")


@pytest.mark.parametrize("engine", ["inplace", "overlay"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_replay_makes_the_weights_again(
    encoder, sentences, make_trainer, tmp_path, engine, dtype
):
    base = copy.deepcopy(encoder).to(dtype)
    how = {} if dtype == torch.float32 else {"objective": "cross_entropy"}  # the loss is in bf16
    trainer = make_trainer(base, sentences, engine=engine, **LOGGED, **how)
    trainer.train()
    model = copy.deepcopy(base)
    assert zoopt.replay(model, tmp_path / "out") == 5
    assert torch.equal(theta(model), theta(trainer.model))
    model = copy.deepcopy(base)
    zoopt.replay(model, tmp_path / "out", 4)
    saved = type(base).from_pretrained(tmp_path / "out" / "checkpoint-4", dtype=dtype)
    assert torch.equal(theta(model), theta(saved))


def test_a_resumed_run_has_the_uninterrupted_ones_log(encoder, sentences, make_trainer, tmp_path):
    make_trainer(encoder, sentences, **LOGGED).train()
    whole = (tmp_path / "out" / "trajectory.jsonl").read_bytes()
    resumed = make_trainer(encoder, sentences, **LOGGED)
    resumed.train(str(tmp_path / "out" / "checkpoint-2"))
    assert (tmp_path / "out" / "trajectory.jsonl").read_bytes() == whole
    elsewhere = make_trainer(encoder, sentences, **LOGGED, output_dir=tmp_path / "new")
    elsewhere.train(str(tmp_path / "out" / "checkpoint-4"))
    assert (tmp_path / "new" / "trajectory.jsonl").read_bytes() == whole
    assert main(["inspect", str(tmp_path / "out")]) == 0
    assert main(["diff", str(tmp_path / "out"), str(tmp_path / "new")]) == 0


def test_a_log_of_another_run_is_not_continued(encoder, sentences, make_trainer, tmp_path, caplog):
    make_trainer(encoder, sentences, **LOGGED).train()
    make_trainer(encoder, sentences, **{**LOGGED, "max_steps": 3}, seed=1).train()
    resumed = make_trainer(encoder, sentences, **LOGGED)
    resumed.train(str(tmp_path / "out" / "checkpoint-4"))
    assert "belongs to another run than" in caplog.text
    assert len(logged(tmp_path).records) == 3

    caplog.clear()
    make_trainer(encoder, sentences, **LOGGED).train()
    other = make_trainer(encoder, sentences, **{**LOGGED, "update": "sgd"})
    other.train(str(tmp_path / "out" / "checkpoint-4"))
    assert "made with update={'name': 'momentum'" in caplog.text
    assert len(logged(tmp_path).records) == 5

    caplog.clear()
    (tmp_path / "out" / "checkpoint-4" / "trajectory.mark.json").unlink()
    make_trainer(encoder, sentences, **LOGGED).train(str(tmp_path / "out" / "checkpoint-4"))
    assert "has no trajectory.mark.json" in caplog.text


def test_a_log_that_cannot_lead_to_the_weights_is_not_continued(
    encoder, sentences, make_trainer, tmp_path, caplog
):
    trainer = make_trainer(encoder, sentences, **LOGGED, save_only_model=True)
    trainer.train()
    assert not caplog.text
    trainer.train()
    assert "training continues at step 5, but not from a checkpoint" in caplog.text
    caplog.clear()
    again = make_trainer(encoder, sentences, **LOGGED, save_only_model=True)
    again.train(str(tmp_path / "out" / "checkpoint-4"))
    assert "it has 4 steps and the optimizer 0" in caplog.text
    assert len(logged(tmp_path).records) == 5
    (tmp_path / "out" / "config.yaml").write_text("")
    make_trainer(encoder, sentences, **LOGGED).train()
    assert "holds a run of zoopt.tune" in caplog.text
    assert len(logged(tmp_path).records) == 5


@pytest.mark.parametrize("engine", ["inplace", "overlay"])
def test_a_step_that_cannot_be_logged_is_not_applied(
    encoder, sentences, make_trainer, tmp_path, monkeypatch, engine
):
    append = zoopt.trajectory.Trajectory.append

    def full(log, record):
        if record.step == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(log, record)

    monkeypatch.setattr(zoopt.trajectory.Trajectory, "append", full)
    trainer = make_trainer(encoder, sentences, engine=engine)
    with pytest.raises(OSError, match="No space"):
        trainer.train()
    model = copy.deepcopy(encoder)
    assert zoopt.replay(model, tmp_path / "out") == 2
    assert (theta(model) - theta(trainer.model)).abs().max() < 1e-6
    assert trainer.zo_optimizer.recorder is None


def test_ones_own_recorder_is_left_alone(encoder, sentences, make_trainer, tmp_path):
    model, records = copy.deepcopy(encoder), []
    optimizer = zoopt.ZOOptimizer(model, lr=1e-2)
    optimizer.recorder = records.append
    trainer = make_trainer(encoder, sentences, optimizers=(optimizer, None))
    trainer.train()
    assert len(records) == 3
    assert not (tmp_path / "out" / "trajectory.jsonl").exists()


# The guard


def test_spikes_are_cut_and_a_resumed_run_cuts_them_alike(
    encoder, sentences, make_trainer, tmp_path
):
    def run(checkpoint=None, **options):
        # Every probe of step 15 is of a loss a thousand times as large.
        first = 15 if checkpoint is None else 3
        fault = faulty({2 * first, 2 * first + 1}, lambda value, rows: 1000 * value)
        settings = {"max_steps": 18, "save_strategy": "steps", "save_steps": 12, **options}
        trainer = make_trainer(encoder, sentences, compute_loss_func=fault, **settings)
        trainer.train(checkpoint)
        return trainer

    whole = run()
    clips = [record.clip for record in logged(tmp_path).records]
    assert clips[:10] == [None] * 10
    assert all(clips[10:])
    said = [entry["projected_gradient"] for entry in training_logs(whole)]
    assert said[15] == pytest.approx(clips[15])
    resumed = run(str(tmp_path / "out" / "checkpoint-12"))
    assert [record.clip for record in logged(tmp_path).records] == clips
    assert torch.equal(theta(resumed.model), theta(whole.model))
    model = copy.deepcopy(encoder)
    zoopt.replay(model, tmp_path / "out")
    assert torch.equal(theta(model), theta(whole.model))


def test_an_optimizer_of_ones_own_is_not_cut(encoder, sentences, make_trainer, tmp_path):
    optimizer = zoopt.ZOOptimizer(encoder, lr=1e-9)
    make_trainer(encoder, sentences, optimizers=(optimizer, None), max_steps=12).train()
    assert {record.clip for record in logged(tmp_path).records} == {None}


def test_a_run_that_gets_worse_is_told_once(encoder, sentences, make_trainer, caplog):
    def run(fault):
        loss = faulty(range(30, 100), fault)  # from step 15 on
        settings = {"max_steps": 35, "learning_rate": 1e-6, "compute_loss_func": loss}
        make_trainer(encoder, sentences, **settings).train()
        return caplog.messages

    assert run(lambda value, rows: 1.1 * value) == []
    (said,) = run(lambda value, rows: 10 * value)
    assert re.match(r"step 19: the objective went from 0\.69\d to 3\.\d+", said)
    assert "The learning rate is 1e-06: go back to a checkpoint" in said


# Faults


def faulty(at, fault):
    """A loss function whose calls of these numbers have a fault."""
    asked = []

    def loss(outputs, labels, num_items_in_batch=None):
        asked.append(len(labels))
        value = torch.nn.functional.cross_entropy(outputs.logits, labels)
        return fault(value, len(labels)) if len(asked) - 1 in at else value

    return loss


def not_finite(value, rows):
    return value * float("nan")


@pytest.mark.parametrize("engine", ["inplace", "overlay"])
def test_a_step_that_is_not_finite_is_skipped(encoder, sentences, make_trainer, caplog, engine):
    looking = Looking("on_step_begin", "on_step_end")
    trainer = make_trainer(
        encoder,
        sentences,
        engine=engine,
        max_steps=6,
        compute_loss_func=faulty({3}, not_finite),  # the second probe of step 1
        callbacks=[looking],
        lr_scheduler_type="linear",
    )
    trainer.train()
    began, ended = looking.seen.values()
    moved = [(a - b).abs().max().item() for a, b in zip(began, ended, strict=True)]
    assert [move > 1e-5 for move in moved] == [True, False, True, True, True, True]
    assert moved[1] < 1e-6 if engine == "inplace" else moved[1] == 0
    assert trainer.zo_optimizer.steps == 5
    entries = [e for e in trainer.state.log_history if "loss" in e]
    assert [e.get("skipped_steps") for e in entries] == [None, 1, 1, 1, 1, 1]
    assert [np.isnan(e["loss"]) for e in entries] == [False, True, False, False, False, False]
    assert [e["learning_rate"] for e in entries] == pytest.approx(
        [1e-2 * share / 6 for share in (6, 5, 4, 3, 2, 1)]
    )
    (said,) = [message for message in caplog.messages if "skipped" in message]
    assert said.startswith("step 1 of training is skipped: the objective returned nan")


def test_a_loss_that_is_logged_is_of_steps_that_were_made(encoder, sentences, make_trainer):
    trainer = make_trainer(
        encoder, sentences, logging_steps=3, compute_loss_func=faulty({2}, not_finite)
    )
    trainer.train()
    (entry,) = training_logs(trainer)
    assert 0.5 < entry["loss"] < 1.0
    assert entry["skipped_steps"] == 1


def test_ten_steps_in_a_row_end_training(encoder, sentences, make_trainer):
    def trainer(faults):
        loss = faulty(faults, not_finite)
        return make_trainer(encoder, sentences, max_steps=12, compute_loss_func=loss)

    # A step that fails asks for one loss, and one that does not for two.
    lasting = trainer(set(range(2, 11)))
    lasting.train()
    assert lasting.zo_optimizer.steps == 12 - 9
    ended = trainer(set(range(2, 12)))
    with pytest.raises(zoopt.interfaces.NonFiniteLossError):
        ended.train()
    assert ended.zo_optimizer.steps == 1
    assert ended.state.global_step == 10


def test_a_resumed_run_counts_skipped_steps_on(encoder, sentences, make_trainer, tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "engine": "overlay"}
    whole = make_trainer(encoder, sentences, compute_loss_func=faulty({2}, not_finite), **settings)
    whole.train()
    resumed = make_trainer(encoder, sentences, compute_loss_func=faulty((), None), **settings)
    resumed.train(str(tmp_path / "out" / "checkpoint-2"))
    assert training_logs(resumed)[-1] == training_logs(whole)[-1]
    assert training_logs(resumed)[-1]["skipped_steps"] == 1
    assert torch.equal(theta(resumed.model), theta(whole.model))
    model = copy.deepcopy(encoder)
    assert zoopt.replay(model, tmp_path / "out") == 3
    assert torch.equal(theta(model), theta(whole.model))


def out_of_memory(above):
    def fault(value, rows):
        if rows > above:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return value

    return fault


@pytest.mark.parametrize("objective", ["loss", "cross_entropy"])
def test_out_of_memory_halves_the_micro_batch(
    encoder, sentences, make_trainer, caplog, monkeypatch, objective
):
    def run(**options):
        trainer = make_trainer(
            encoder,
            sentences,
            per_device_train_batch_size=8,
            engine="overlay",
            objective=objective,
            **options,
        )
        if options:
            return trainer
        trainer.train()
        return trainer

    whole = run()
    small = run(max_steps=3)
    forward, seen = small.model.forward, []

    @functools.wraps(forward)
    def limited(*args, **kwargs):
        seen.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs) if seen[-1] <= 3 else out_of_memory(3)(None, seen[-1])

    monkeypatch.setattr(small.model, "forward", limited)
    small.train()
    assert seen == [8, 4] + [2] * 4 * 2 * 3
    assert [m for m in caplog.messages if "a forward has" in m][-1].startswith(
        "out of memory: from now on a forward has at most 2 rows"
    )
    for mine, theirs in zip(training_logs(small), training_logs(whole), strict=True):
        assert mine[objective] == pytest.approx(theirs[objective], rel=1e-5)
    assert theta(small.model) == pytest.approx(theta(whole.model), abs=1e-4)


def test_a_row_that_does_not_fit_and_a_batch_that_cannot_be_halved_are_errors(
    encoder, sentences, make_trainer
):
    fault = faulty(range(100), out_of_memory(0))
    with pytest.raises(RuntimeError, match="a forward of one row"):
        make_trainer(encoder, sentences, compute_loss_func=fault).train()
    fault = faulty(range(100), out_of_memory(0))

    def collate(rows):
        return {**default_data_collator(rows), "position_ids": torch.arange(6)[None]}

    with pytest.raises(
        RuntimeError, match=r"'position_ids' \(of shape \(1, 6\)\) is not a tensor with a row"
    ):
        make_trainer(encoder, sentences, compute_loss_func=fault, data_collator=collate).train()


# What is refused, and what is said


SCORED = {"compute_metrics": correct, "metric_for_best_model": "share"}
SETTINGS = {"world_size": 1, "n_gpu": 1, "fp16": False}


@pytest.mark.parametrize(
    ("args", "more", "said"),
    [
        ({"world_size": 2}, {}, "several processes"),
        ({"n_gpu": 2}, {}, "CUDA_VISIBLE_DEVICES=0"),
        ({"fp16": True}, {}, "bf16=True"),
        ({}, {"is_deepspeed_enabled": True}, "DeepSpeed"),
        ({}, {"is_fsdp_enabled": True}, "FSDP"),
        ({}, {"devices": ("cpu", "meta")}, "several devices"),
    ],
)
def test_what_would_go_wrong_in_silence_is_refused(args, more, said):
    devices = more.pop("devices", ("cpu",))
    model = torch.nn.ParameterList([torch.empty(1, device=device) for device in devices])
    trainer = SimpleNamespace(
        args=SimpleNamespace(**{**SETTINGS, **args}),
        model=model,
        **{"is_deepspeed_enabled": False, "is_fsdp_enabled": False, **more},
    )
    with pytest.raises(ValueError, match=said):
        checks.refuse(trainer)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"lr": "auto"}, "no lr='auto': use"), ({"lr": 1, "eps": "auto"}, "lr=1 and no eps='auto'")],
)
def test_rates_are_refused_with_where_they_go(encoder, sentences, make_trainer, given, said):
    with pytest.raises(TypeError, match=rf"{said}.* TrainingArguments\(learning_rate=1e-6\)"):
        make_trainer(encoder, sentences, **given)


def test_an_optimizer_of_gradients_is_refused(encoder, sentences, make_trainer):
    adam = torch.optim.AdamW(encoder.parameters())
    with pytest.raises(ValueError, match=r"AdamW, which needs gradients"):
        make_trainer(encoder, sentences, optimizers=(adam, None))
    mine = zoopt.ZOOptimizer(encoder)
    with pytest.raises(ValueError, match="maximize=False"):
        make_trainer(encoder, sentences, optimizers=(mine, None), objective="accuracy")
    with pytest.raises(ValueError, match="engine"):
        make_trainer(encoder, sentences, optimizers=(mine, None), engine="overlay")


def test_one_loss_for_several_probes_is_refused(encoder, sentences, make_trainer):
    options = {"direction": "lowrank", "engine": "batched"}
    with pytest.raises(ValueError, match="objective='cross_entropy'"):
        make_trainer(encoder, sentences, **options).train()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "compute_metrics"}, "pass the function"),
        ({"objective": "compute_metrics", "compute_metrics": correct}, "metric_for_best_model="),
        (
            {"objective": "compute_metrics", **SCORED, "batch_eval_metrics": True},
            "batch_eval_metrics=True: a step has all its predictions at once",
        ),
        (
            {"objective": "compute_metrics", **SCORED, "include_for_metrics": ["inputs"]},
            r"include_for_metrics=\['inputs'\]: a step passes .* use objective=zoopt.metric",
        ),
        ({"objective": "bleu"}, "takes texts, but a Trainer's predictions are scores"),
    ],
)
def test_an_objective_that_cannot_be_asked_is_refused(
    encoder, sentences, make_trainer, options, said
):
    with pytest.raises(ValueError, match=said):
        make_trainer(encoder, sentences, **options)


def test_a_metric_of_classes_refuses_the_logits_of_tokens(decoder, texts, make_trainer):
    trainer = make_trainer(decoder, texts, objective="accuracy")
    with pytest.raises(ValueError, match=r"predicts \(4, 6, 20\)"):
        trainer.train()


def test_arguments_without_meaning_are_said(encoder, sentences, make_trainer, caplog):
    make_trainer(encoder, sentences, max_grad_norm=0.5, learning_rate=5e-5)
    assert "max_grad_norm: applies to gradients" in caplog.text
    assert "5e-05 is the default for AdamW" in caplog.text
    caplog.clear()
    make_trainer(encoder, sentences)
    assert not caplog.text


@pytest.mark.slow
def test_importing_zoopt_does_not_import_the_trainer():
    code = "import sys, zoopt; assert 'transformers.trainer' not in sys.modules; zoopt.ZOTrainer"
    subprocess.run([sys.executable, "-c", code], check=True)
