"""The fault matrix: each fault × (in-place, overlay) × (fp32, bf16).

After the fault the same run is started again, and ends with the log and the weights, bit for bit,
of a run that nothing happened to. ``docs/faults.md`` says of each fault what is lost.
"""

import errno
import shutil
import signal
import types

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import zoopt
from zoopt import trajectory
from zoopt.tasks import TaskObjective
from zoopt.trajectory import checkpoint
from zoopt.tuning import ending
from zoopt.tuning.folder.metrics_file import Metrics
from zoopt.tuning.stepping import Stepper

SETTINGS = {
    "objective": "cross_entropy",
    "lr": 0.05,
    "eps": 0.01,
    "steps": 7,
    "batch_size": 8,
    "eval_every": 2,
    "rollbacks": 0,  # a run that goes back is another run: tests/tuning/faults/test_guard.py
    "quiet": True,
}
PER_STEP = 2
FIFTH = 2 + 4 * PER_STEP + 2
"""The second probe of the fifth step, among forwards of a batch; two measure the noise floor."""


class Case:
    """A run that a fault can be put into: `at(forward)` is called before each forward of a step."""

    def __init__(self, folder, engine, dtype, monkeypatch, rows=10):
        self.rows, self.task = rows, None
        self.folder, self.engine, self.dtype = folder, engine, dtype
        self.monkeypatch, self.at = monkeypatch, lambda forward: None
        self.model = None

    def start(self, **changes):
        """Starts the run, or starts it again, with the base model."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(40, 6, generator=generator)
        rows = [{"x": r.tolist(), "label": "yes" if r[0] > r[1] else "no"} for r in x]
        forwards = iter(range(1, 10_000))

        def collate(batch):
            if len(batch) in (4, 8):
                self.at(next(forwards))
            return torch.tensor([row["x"] for row in batch], dtype=self.dtype)

        task = zoopt.HeadClassification(
            rows[:30], rows[30:], labels=["no", "yes"], collate=collate, batch_size=self.rows
        )
        torch.manual_seed(1)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
        ).to(self.dtype)
        self.task = task
        settings = {**SETTINGS, "engine": self.engine, **changes}
        return zoopt.tune(self.model, task=task, run_dir=self.folder, **settings)

    def end(self):
        """θ of the best step and of the last, and the log."""
        weights = [p.detach().clone() for p in self.model.parameters()]
        weights += load_file(self.folder / "snapshot.safetensors").values()
        return weights, (self.folder / "trajectory.jsonl").read_bytes()

    def fail_once(self, target, name, error, when=1, before=lambda *args: None):
        """The `when`-th call of a function raises, after what `before` does of its work."""
        real, calls = getattr(target, name), iter(range(1, 10_000))

        def failing(*args, **kwargs):
            if next(calls) == when:
                before(*args)
                raise error
            return real(*args, **kwargs)

        self.monkeypatch.setattr(target, name, failing)

    def copy_as_killed(self):
        """Keeps the files as they are at this moment, which is all that a kill leaves."""
        shutil.copytree(self.folder, self.folder.with_name("killed"), dirs_exist_ok=True)

    def killed(self):
        """Makes the run's files those of the moment of the kill."""
        shutil.rmtree(self.folder)
        self.folder.with_name("killed").rename(self.folder)


def at_fifth(case, fault):
    case.at = lambda forward: fault() if forward == FIFTH else None


def interrupted(case):
    at_fifth(case, lambda: signal.raise_signal(signal.SIGINT))
    assert case.start().stop == {"interrupted": 4}


def terminated(case):
    at_fifth(case, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        case.start()
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def killed_in_a_probe(case):
    at_fifth(case, case.copy_as_killed)
    case.start()
    case.killed()


def killed_between_log_and_update(case):
    real = zoopt.SGD.apply

    def apply(rule, step):
        if len(trajectory.read(case.folder / "trajectory.jsonl").records) == 5:
            case.copy_as_killed()
        real(rule, step)

    with case.monkeypatch.context() as patch:
        patch.setattr(zoopt.SGD, "apply", apply)
        case.start()
    case.killed()
    assert len(trajectory.read(case.folder / "trajectory.jsonl").records) == 5


def killed_in_an_evaluation(case):
    real = checkpoint.save

    def save(path, optimizer, facts, state=True):
        if state and optimizer.steps == 2:
            case.copy_as_killed()
        real(path, optimizer, facts, state)

    with case.monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        case.start()
    case.killed()


def torn_last_line(case):
    killed_in_a_probe(case)
    for name in ("trajectory.jsonl", "metrics.jsonl"):
        path = case.folder / name
        path.write_bytes(path.read_bytes()[:-25])


def damaged_metrics(case):
    killed_in_a_probe(case)
    path = case.folder / "metrics.jsonl"
    damage(case, path)


def damage(case, path):
    """The line of the evaluation at step 2 is overwritten; what the error says to do is done."""
    lines = path.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"step": 2, "dev"' in line)
    lines[place] = bytes(len(lines[place]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    said = rf"line {place + 1} of \S+metrics.jsonl is damaged .* delete this line, and snapshot"
    with pytest.raises(zoopt.TrajectoryError, match=said):
        case.start()
    assert path.read_bytes() == b"".join(lines)
    path.write_bytes(b"".join(lines[:place] + lines[place + 1 :]))
    remove_snapshots(case)


def remove_snapshots(case):
    for snapshot in case.folder.glob("snapshot*.safetensors"):
        snapshot.unlink()


def power_cut(case):
    """Files that were forced to disk are there; the log's last lines are not."""
    killed_in_a_probe(case)
    log = case.folder / "trajectory.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:4]))


def full_disk_at_the_log(case):
    full = OSError(errno.ENOSPC, "No space left on device")
    write = trajectory.Trajectory._write

    def _write(log, entry):
        if entry.get("step") == 4:
            half = types.SimpleNamespace(
                write=lambda data, file=log._file: file.write(data[:20]) and _raise(full),
                truncate=log._file.truncate,
                fileno=log._file.fileno,
                close=log._file.close,
            )
            log._file = half
        write(log, entry)

    with case.monkeypatch.context() as patch:
        patch.setattr(trajectory.Trajectory, "_write", _write)
        with pytest.raises(OSError, match=r"the disk is full .* start the same run again"):
            case.start()
    assert len(trajectory.read(case.folder / "trajectory.jsonl").records) == 4
    assert (case.folder / "trajectory.jsonl").read_bytes().endswith(b"\n")


def full_disk_at_a_checkpoint(case):
    full = OSError(errno.ENOSPC, "No space left on device")
    with case.monkeypatch.context() as patch:
        case.monkeypatch = patch
        halves = lambda tensors, path, **_: path.write_bytes(b"half")  # noqa: E731
        case.fail_once(checkpoint, "save_file", full, when=5, before=halves)
        with pytest.raises(OSError, match="earlier checkpoints are whole"):
            case.start()
    assert not list(case.folder.glob("*.partial"))
    assert checkpoint.step_of(case.folder / "snapshot.safetensors", -1) in (0, 2)


def full_disk_at_the_model(case):
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    with case.monkeypatch.context() as patch:
        case.monkeypatch = patch
        case.fail_once(checkpoint, "save_model", SafetensorError(said))
        with pytest.raises(OSError, match="the disk is full"):
            case.start()
    assert not list(case.folder.glob("*.partial"))


def full_disk_at_the_metrics(case):
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(metrics, step):
        if step == 4:
            with (case.folder / "metrics.jsonl").open("ab") as file:
                file.write(b'{"step": 4, "de')
            raise full

    with pytest.raises(OSError, match="the disk is full"):
        case.start(callbacks=[fails])


def truncated(*names):
    def fault(case):
        killed_in_a_probe(case)
        for name in names:
            path = case.folder / name
            path.write_bytes(path.read_bytes()[:-7])

    return fault


def no_number(case):
    calls = iter(range(1, 10_000))
    score = TaskObjective.score

    def nan(objective, predictions, references):
        if len(references) == 8 and next(calls) == FIFTH:
            return float("nan")
        return score(objective, predictions, references)

    with case.monkeypatch.context() as patch:
        patch.setattr(TaskObjective, "score", nan)
        stop = case.start().stop
    assert "non-finite objective" in stop


def users_mistake(case):
    def fault():
        raise ZeroDivisionError("mine")

    at_fifth(case, fault)
    with pytest.raises(ZeroDivisionError, match="mine"):
        case.start()


FAULTS = {
    "SIGINT": interrupted,
    "SIGTERM": terminated,
    "SIGKILL in a probe": killed_in_a_probe,
    "SIGKILL between log and update": killed_between_log_and_update,
    "SIGKILL in an evaluation": killed_in_an_evaluation,
    "torn last line": torn_last_line,
    "damaged line within the metrics": damaged_metrics,
    "power cut": power_cut,
    "full disk at the log": full_disk_at_the_log,
    "full disk at a checkpoint": full_disk_at_a_checkpoint,
    "full disk at the model": full_disk_at_the_model,
    "full disk at the metrics": full_disk_at_the_metrics,
    "truncated snapshot": truncated("snapshot.safetensors"),
    "truncated snapshots, both": truncated("snapshot.safetensors", "snapshot.earlier.safetensors"),
    "truncated best checkpoint": truncated("best.safetensors"),
    "truncated base evaluation": truncated("before.npz"),
    "NaN": no_number,
    "a mistake in the task": users_mistake,
}

CELLS = pytest.mark.parametrize(
    ("engine", "dtype"),
    [(e, d) for e in ("inplace", "overlay") for d in (torch.float32, torch.bfloat16)],
    ids=lambda value: str(value).removeprefix("torch."),
)


def _raise(error):
    raise error


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True)) and a[1] == b[1]


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(ending, "write_report", lambda *args: None)


@pytest.fixture(scope="module")
def whole_runs():
    return {}


@pytest.fixture
def case(engine, dtype, tmp_path, monkeypatch):
    return Case(tmp_path / "run", engine, dtype, monkeypatch)


@pytest.fixture
def whole(engine, dtype, tmp_path, monkeypatch, whole_runs):
    """The end of the run that nothing happens to."""
    if (engine, dtype) not in whole_runs:
        run = Case(tmp_path / "whole", engine, dtype, monkeypatch)
        run.start()
        whole_runs[engine, dtype] = run.end()
    return whole_runs[engine, dtype]


def test_an_evaluation_that_was_lost_and_was_the_best_is_the_best_again(tmp_path, monkeypatch):
    scores = {0: 1.0, 2: 0.1, 4: 0.5, 6: 0.6, 7: 0.7}
    monkeypatch.setattr(Stepper, "score", lambda self, rows: scores[self.optimizer.steps])
    case = Case(tmp_path / "run", "inplace", torch.float32, monkeypatch)
    assert case.start().best_step == 2
    whole, path = case.end(), case.folder / "metrics.jsonl"
    damage(case, path)
    again = case.start()
    assert (again.best_step, again.best_score) == (2, 0.1)
    assert torch.equal(case.end()[0][0], whole[0][0])
    assert list(Metrics(path, SETTINGS["steps"]).evaluations.items()) == list(scores.items())


def test_a_run_without_snapshots_has_one_of_the_base_model_to_go_back_to(tmp_path, monkeypatch):
    case = Case(tmp_path / "run", "inplace", torch.float32, monkeypatch)
    killed_in_a_probe(case)
    remove_snapshots(case)
    case.at = lambda forward: _raise(KeyboardInterrupt())
    assert "interrupted" in case.start().stop
    assert [checkpoint.step_of(s, -1) for s in case.folder.glob("snapshot*.safetensors")] == [0]


@CELLS
@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_ends_as_if_nothing_had_happened(fault, case, whole):
    FAULTS[fault](case)
    case.at = lambda forward: None
    assert case.start().stop == {"steps": SETTINGS["steps"]}
    assert same(case.end(), whole)


class FromStep(zoopt.Callback):
    """From a step on, forwards have fewer rows, as they do after memory has run out."""

    def __init__(self, case, step, rows, before_evaluation):
        self.case, self.step, self.rows = case, step, rows
        if before_evaluation:
            self.on_step = self.on_evaluation

    def on_evaluation(self, metrics, step):
        if step == self.step:
            self.case.task.batch_size = self.rows


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@CELLS
@pytest.mark.parametrize(("in_evaluation", "forward"), [(False, 15), (True, 13)])
def test_out_of_memory_goes_on_with_smaller_forwards(
    in_evaluation, forward, engine, dtype, tmp_path, monkeypatch
):
    """The fifth step, or the evaluation before it, fails, and is made again from the same θ."""
    expected = Case(tmp_path / "expected", engine, dtype, monkeypatch, rows=8)
    expected.start(callbacks=[FromStep(expected, 4, 4, in_evaluation)])
    case = Case(tmp_path / "run", engine, dtype, monkeypatch, rows=8)
    error = OUT_OF_MEMORY[in_evaluation]
    case.at = lambda n: _raise(error) if n == forward else None
    case.start()
    assert same(case.end(), expected.end())
    metrics = (case.folder / "metrics.jsonl").read_text()
    assert metrics.count('{"step": 4, "forward_size": 4}\n') == 1


@CELLS
def test_a_resumed_run_keeps_its_smaller_forwards(engine, dtype, tmp_path, monkeypatch):
    expected = Case(tmp_path / "expected", engine, dtype, monkeypatch, rows=8)
    expected.start(callbacks=[FromStep(expected, 0, 4, False)])
    case = Case(tmp_path / "run", engine, dtype, monkeypatch, rows=8)
    case.at = lambda n: (
        _raise(OUT_OF_MEMORY[0]) if n == 4 else signal.raise_signal(signal.SIGINT) if n == 21 else 0
    )
    assert "interrupted" in case.start().stop
    case.at = lambda n: None
    case.start()
    assert same(case.end(), expected.end())


def test_memory_for_not_even_one_row_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    case = Case(tmp_path / "run", "inplace", torch.float32, monkeypatch, rows=1)
    case.monkeypatch.setattr(
        zoopt.HeadClassification, "forward", lambda *args: _raise(OUT_OF_MEMORY[0])
    )
    with pytest.raises(RuntimeError, match=r"one row .* shorten the inputs"):
        case.start()


def test_a_run_has_one_writer(tmp_path, monkeypatch):
    case = Case(tmp_path / "run", "inplace", torch.float32, monkeypatch)
    other = Case(tmp_path / "run", "inplace", torch.float32, monkeypatch)
    said = []

    def again(metrics, step):
        with pytest.raises(ValueError, match="is being written by another run") as caught:
            other.start()
        said.append(str(caught.value))

    case.start(steps=1, callbacks=[again])
    assert len(said) == 1
    case.start(steps=1)


@CELLS
def test_a_number_that_is_none_rolls_back_also_where_the_run_is_killed_after(
    engine, dtype, tmp_path, monkeypatch
):
    ends, seventh = [], FIFTH + 2 * PER_STEP
    for kill in (False, True):
        case = Case(tmp_path / str(kill), engine, dtype, monkeypatch)
        calls = iter(range(1, 10_000))
        score = TaskObjective.score

        def nan(objective, predictions, references, calls=calls, score=score):
            if len(references) == 8 and next(calls) == FIFTH:
                return float("nan")
            return score(objective, predictions, references)

        with monkeypatch.context() as patch:
            patch.setattr(TaskObjective, "score", nan)
            if kill:
                case.at = lambda n, case=case: case.copy_as_killed() if n == seventh else None
            case.start(rollbacks=1)
        if kill:
            case.killed()
            case.at = lambda n: None
            case.start(rollbacks=1)
        log = trajectory.read(case.folder / "trajectory.jsonl")
        assert [rollback.at for rollback in log.rollbacks] == [4]
        ends.append(case.end())
    assert same(*ends)
