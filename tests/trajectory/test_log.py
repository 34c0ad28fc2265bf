"""The log: what was written is what is read, or it is refused with the line's number."""

import json

import pytest
import torch

import zoopt
from zoopt import trajectory
from zoopt.optimizer import ZOOptimizer
from zoopt.trajectory.log import Rollback


def model():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


def logged(folder, steps=4):
    """The model that a log of so many steps leads to."""
    tuned = model()
    optimizer = ZOOptimizer(tuned, lr=0.1)
    log = trajectory.Trajectory(
        folder / trajectory.FILENAME, trajectory.header_of(optimizer, tuned)
    )
    optimizer.recorder = log.append
    for _ in range(steps):
        optimizer.step(lambda: tuned(torch.ones(1, 3)).square().sum())
    log.close()
    return tuned


def lines_of(folder):
    return (folder / trajectory.FILENAME).read_bytes().splitlines(keepends=True)


def written(folder, lines):
    (folder / trajectory.FILENAME).write_bytes(b"".join(lines))


def digit(line, key):
    """The line with a digit of a number changed."""
    place = line.index(b".", line.index(key)) + 1
    return line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "number"),
    [
        (lambda lines: [*lines[:2], digit(lines[2], b'"losses"'), *lines[3:]], 3),
        (lambda lines: [*lines[:2], digit(lines[2], b'"lr"'), *lines[3:]], 3),
        (lambda lines: [*lines[:2], *lines[3:]], 3),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
        (lambda lines: [*lines[:2], b"5\n", *lines[3:]], 3),
        (lambda lines: [*lines[:2], b"[]\n", *lines[3:]], 3),
        (lambda lines: [*lines[:2], b'{"step": 1}\n', *lines[3:]], 3),
        (lambda lines: [*lines[:2], b"\0" * 20 + b"\n", *lines[3:]], 3),
        (lambda lines: [lines[0].replace(b'"seed": 0', b'"seed": 1'), *lines[1:]], 1),
    ],
)
def test_a_damaged_line_is_named(tmp_path, damage, number):
    logged(tmp_path)
    written(tmp_path, damage(lines_of(tmp_path)))
    with pytest.raises(zoopt.TrajectoryError, match=f"line {number} of .* damaged"):
        zoopt.replay(model(), tmp_path)


def test_what_comes_before_a_damaged_line_is_good_once_it_is_cut_there(tmp_path):
    logged(tmp_path)
    lines = lines_of(tmp_path)
    written(tmp_path, [*lines[:3], digit(lines[3], b'"losses"'), *lines[4:]])
    with pytest.raises(zoopt.TrajectoryError, match="continues from step 2"):
        zoopt.replay(model(), tmp_path)
    written(tmp_path, lines[:3])
    assert zoopt.replay(model(), tmp_path) == 2


def test_a_log_is_continued_after_rollbacks_and_torn_lines(tmp_path):
    logged(tmp_path)
    path = tmp_path / trajectory.FILENAME
    written(tmp_path, [*lines_of(tmp_path), b'{"step": 4, "se'])
    log = trajectory.Trajectory(path)
    log.roll_back(Rollback(2, 4, "worse"))
    log.close()
    held = trajectory.read(path)
    assert (len(held.records), held.rollbacks) == (2, (Rollback(2, 4, "worse"),))


def test_a_log_of_an_earlier_format_has_no_checksums_and_gets_none(tmp_path):
    tuned = logged(tmp_path)
    path = tmp_path / trajectory.FILENAME
    entries = [json.loads(line) for line in lines_of(tmp_path)]
    for entry in entries:
        del entry["crc32"]
    entries[0]["format"] = 2
    written(tmp_path, [json.dumps(entry).encode() + b"\n" for entry in entries])
    again = model()
    assert zoopt.replay(again, tmp_path) == 4
    assert torch.equal(again.weight, tuned.weight)
    log = trajectory.Trajectory(path)
    log.roll_back(Rollback(1, 4, "worse"))
    log.close()
    assert b"crc32" not in path.read_bytes()
    assert len(trajectory.read(path).records) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda x: x[:-1], "only 1 losses are known, too few"), (lambda x: (*x, 1.0), "takes 2")],
)
def test_a_record_with_other_losses_than_probes_is_refused(change, said):
    records = []
    optimizer = ZOOptimizer(model(), lr=0.1)
    optimizer.recorder = records.append
    optimizer.step(lambda: 1.0)
    (record,) = records
    wrong = type(record)(**{**vars(record), "losses": change(record.losses)})
    with pytest.raises(ValueError, match=said):
        ZOOptimizer(model(), lr=0.1).repeat(wrong)


def test_a_log_is_not_continued_with_another_decay_of_vectors():
    header = trajectory.header_of(ZOOptimizer(model(), weight_decay=0.1))
    with pytest.raises(zoopt.TrajectoryError, match="decay_1d"):
        trajectory.check_base(header, ZOOptimizer(model(), weight_decay=0.1, decay_1d=True))


@pytest.mark.parametrize("restored", [(), (0,), (1, 3), (0, 1, 2, 3, 4)])
def test_a_replay_restores_theta_before_the_updates_that_the_run_did(tmp_path, restored):
    torch.manual_seed(0)
    tuned = torch.nn.Linear(64, 64)
    base = {name: value.clone() for name, value in tuned.state_dict().items()}
    x = torch.randn(8, 64)
    optimizer = ZOOptimizer(tuned, lr=1e-2, engine="inplace")
    log = trajectory.Trajectory(
        tmp_path / trajectory.FILENAME, trajectory.header_of(optimizer, tuned)
    )
    optimizer.recorder = log.append
    for step in range(5):
        optimizer.estimate(lambda: tuned(x).square().mean())
        if step in restored:
            optimizer.settle()
        optimizer.step()
    log.close()
    again = torch.nn.Linear(64, 64)
    again.load_state_dict(base)
    assert zoopt.replay(again, tmp_path) == 5
    assert torch.equal(again.weight, tuned.weight)
    records = trajectory.read(tmp_path / trajectory.FILENAME).records
    assert [record.step for record in records if record.settled] == list(restored)
