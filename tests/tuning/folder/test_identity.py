"""A folder's run goes on with what it began with, and says so where that is something else."""

import json

import numpy as np
import pytest
import torch

import zoopt
from zoopt.trajectory import TrajectoryError
from zoopt.tuning.folder.identity import identity_of
from zoopt.tuning.folder.run_folder import RunFolder


def rows_of(seed):
    x = np.random.default_rng(seed).normal(size=(30, 3)).round(3)
    return [{"x": r.tolist(), "label": "yes" if r[0] > r[1] else "no"} for r in x]


def collate(batch):
    return torch.tensor([row["x"] for row in batch], dtype=torch.float32)


def task_of(rows, labels=("no", "yes")):
    return zoopt.HeadClassification(rows[:20], rows[20:], labels=labels, collate=collate)


def network(frozen=0):
    torch.manual_seed(frozen)
    below = torch.nn.Linear(3, 4)
    torch.manual_seed(7)
    return torch.nn.Sequential(below, torch.nn.Tanh(), torch.nn.Linear(4, 2))


def run(folder, task=None, model=None, **settings):
    task = task or task_of(rows_of(0))
    usual = {"objective": "cross_entropy", "lr": 0.05, "eps": 0.01, "steps": 4, "eval_every": 2}
    settings = {**usual, "params": ("2.*",), **settings}
    return zoopt.tune(model or network(), task=task, run_dir=folder, quiet=True, **settings)


def half_a_run(folder, **settings):
    """A run that an interruption ends after two steps."""

    class Ends(zoopt.Callback):
        def on_step(self, metrics, step):
            if step == 2:
                raise KeyboardInterrupt

    assert run(folder, callbacks=[Ends()], **settings).stop == {"interrupted": 2}


@pytest.mark.parametrize("split", [0, 29])
def test_other_examples_are_another_run(tmp_path, split):
    half_a_run(tmp_path)
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    rows = rows_of(0)
    rows[split]["x"][0] += 0.001
    name = "dev" if split else "train"
    with pytest.raises(ValueError, match=rf"(?s)of something else:\n  {name}.sha256: .*run_dir"):
        run(tmp_path, task_of(rows))
    assert {name: (tmp_path / name).read_bytes() for name in held} == held


def test_another_order_of_labels_is_another_run(tmp_path):
    half_a_run(tmp_path)
    with pytest.raises(ValueError, match=r"labels: \['no', 'yes'\] there, \['yes', 'no'\] now"):
        run(tmp_path, task_of(rows_of(0), labels=("yes", "no")))


def test_options_of_a_task_are_read_back_as_they_were(tmp_path):
    RunFolder(tmp_path, {}, {"task": {"decoding": {"temperature": 1e-05}}}).release()
    RunFolder(tmp_path, {}, {"task": {"decoding": {"temperature": 1e-05}}}).release()
    (tmp_path / "auto").mkdir()
    with pytest.raises(ValueError, match=r"temperature: 1e-05 there, 2e-05 now"):
        RunFolder(tmp_path, {}, {"task": {"decoding": {"temperature": 2e-05}}})


def test_equal_examples_made_again_are_the_same_run(tmp_path):
    half_a_run(tmp_path)
    run(tmp_path)
    run(tmp_path.with_name("whole"))
    log = "trajectory.jsonl"
    assert (tmp_path / log).read_bytes() == (tmp_path.with_name("whole") / log).read_bytes()


def test_other_untuned_weights_are_another_model(tmp_path):
    half_a_run(tmp_path)
    with pytest.raises(TrajectoryError, match=r"untuned weights have fingerprint .* use that"):
        run(tmp_path, model=network(frozen=1))
    with pytest.raises(TrajectoryError, match="untuned weights"):
        zoopt.replay(network(frozen=1), tmp_path)
    assert zoopt.replay(network(), tmp_path) == 2
    assert run(tmp_path).steps == 4


def test_a_log_without_untuned_weights_is_still_replayed(tmp_path):
    run(tmp_path)
    path = tmp_path / "trajectory.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in entries:
        del entry["crc32"]  # nor had such a log checksums
    del entries[0]["frozen"]
    entries[0]["format"] = 2
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert zoopt.replay(network(frozen=1), tmp_path) == 4


def test_a_run_that_came_to_no_step_gives_way(tmp_path):
    class Refuses(zoopt.Callback):
        def on_evaluation(self, metrics, step):
            raise RuntimeError("no")

    other = task_of(rows_of(1))
    with pytest.raises(RuntimeError):
        run(tmp_path, other, lr=1.0, callbacks=[Refuses()])
    found = run(tmp_path)
    expected = run(tmp_path.with_name("fresh"))
    assert found.report.rows == expected.report.rows
    log = "trajectory.jsonl"
    assert (tmp_path / log).read_bytes() == (tmp_path.with_name("fresh") / log).read_bytes()


def test_arrays_are_told_by_what_they_hold():
    def of(value):
        rows = [{"x": value, "label": "no"}]
        task = zoopt.HeadClassification(rows, labels=["no", "yes"], collate=collate)
        return identity_of(task)["train"]

    a, b = torch.zeros(5000), torch.zeros(5000)
    b[4321] = 1.0
    assert of(a) == of(torch.zeros(5000)) != of(b)
    assert of(a.numpy()) != of(b.numpy())
    assert of(a.bfloat16()) != of(b.bfloat16())


def test_of_examples_that_are_made_when_asked_for_the_number_is_known():
    class Made(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return {"x": torch.rand(3), "label": "no"}

    task = zoopt.HeadClassification(Made(), labels=["no", "yes"], collate=collate)
    assert identity_of(task)["train"] == {"examples": 3}
