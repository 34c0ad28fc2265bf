"""A run killed with SIGKILL ten times at random moments ends where the uninterrupted one does."""

import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

RUN = """
import sys, time, torch, zoopt

def slowly(folder, seconds):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 12, generator=generator)
    rows = [{{"x": r.tolist(), "label": "yes" if r[0] > r[1] else "no"}} for r in x]

    def collate(batch):
        time.sleep(seconds)
        return torch.tensor([row["x"] for row in batch], dtype=torch.{dtype})

    task = zoopt.HeadClassification(
        rows[:64], rows[64:80], rows[80:], labels=["no", "yes"], collate=collate
    )
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(12, 64), torch.nn.Tanh(), torch.nn.Linear(64, 2))
    model.to(torch.{dtype})
    zoopt.tune(
        model, task=task, objective="cross_entropy", estimator="{estimator}", engine="{engine}",
        update="{update}", lr=0.02, eps=0.01, steps=240, batch_size=8, eval_every=20,
        run_dir=folder, quiet=True,
    )

slowly(sys.argv[1], float(sys.argv[2]))
"""


def start(script, folder, seconds):
    with errors_of(script).open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, str(script), str(folder), str(seconds)],
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


def errors_of(script):
    return script.with_suffix(".err")


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "engine", "update", "dtype"),
    [
        ("mezo", "inplace", "sgd", "float32"),
        ("nspsa", "overlay", "adam", "float32"),
        ("mezo", "overlay", "sgd", "bfloat16"),
    ],
)
def test_ten_kills_change_nothing(tmp_path, estimator, engine, update, dtype):
    script = tmp_path / "run.py"
    script.write_text(RUN.format(estimator=estimator, engine=engine, update=update, dtype=dtype))
    whole = start(script, tmp_path / "whole", 0)
    assert whole.wait(300) == 0, errors_of(script).read_text()

    folder, rng = tmp_path / "killed", random.Random(0)
    log = folder / "trajectory.jsonl"
    for _ in range(10):
        process = start(script, folder, 0.01)
        seen, more = lines(log), rng.randrange(1, 24)
        deadline = time.monotonic() + 120
        while lines(log) < seen + more and process.poll() is None:
            assert time.monotonic() < deadline, "the run makes no progress"
            time.sleep(0.002)
        time.sleep(rng.random() * 0.03)
        assert process.poll() is None, errors_of(script).read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert lines(log) < 241, "the last kill came after the end"
    last = start(script, folder, 0)
    assert last.wait(300) == 0, errors_of(script).read_text()

    assert log.read_bytes() == (tmp_path / "whole" / "trajectory.jsonl").read_bytes()
    for name in ("best/model.safetensors", "best.safetensors", "snapshot.safetensors"):
        found, expected = load_file(folder / name), load_file(tmp_path / "whole" / name)
        assert found.keys() == expected.keys()
        assert all(found[key].equal(expected[key]) for key in expected), name
