"""Rows that a data set builds whenever they are accessed are told apart by their places."""

import numpy as np
import pytest
import torch

import zoopt
from zoopt.objectives.resolve import resolve
from zoopt.tasks import Drawn, TaskObjective
from zoopt.tuning.dryrun import DryRun
from zoopt.tuning.settings import Settings


class Lazy:
    """A data set as torch's: each access builds a row anew, and no index is too large."""

    def __init__(self, make, n):
        self.make, self.n = make, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.make(i)


def labelled(i):
    x = torch.randn(4, generator=torch.Generator().manual_seed(i)).tolist()
    return {"x": x, "label": "yes" if x[0] > x[1] else "no"}


def valued(i):
    return {**labelled(i), "label": float(i % 3)}


def paired(i):
    return {"chosen": labelled(2 * i), "rejected": labelled(2 * i + 1), "share": 0.5 + i % 3 / 4}


def collate(rows):
    return torch.tensor([row["x"] for row in rows])


def classes(*splits):
    return zoopt.HeadClassification(*splits, labels=["no", "yes"], collate=collate)


def values(*splits):
    return zoopt.Regression(*splits, collate=collate)


def preferences(*splits):
    return zoopt.Preference(values([valued(0)]), *splits)


def larger(a, b, references):
    return float(np.sum(a) - np.sum(b))


RUNS = {
    "kl": (classes, labelled, 2, "cross_entropy + 0.1 * kl_to_base", 0.1),
    "kl at a rate that is found": (
        classes,
        labelled,
        2,
        "cross_entropy + 0.1 * kl_to_base",
        "auto",
    ),
    "comparison": (values, valued, 1, zoopt.comparison(larger, needs="values"), 0.1),
    "dpo": (preferences, paired, 1, "dpo", 0.1),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_compares_each_row_with_the_base_models_output_on_it(kind, tmp_path):
    make, row, outputs, objective, lr = RUNS[kind]
    ends = []
    for lazy in (False, True):
        splits = [Lazy(lambda i, k=k: row(20 * k + i), 20) for k in range(3)]
        task = make(*(splits if lazy else ([split[i] for i in range(20)] for split in splits)))
        torch.manual_seed(0)
        model = torch.nn.Linear(4, outputs)
        zoopt.tune(
            model,
            task=task,
            objective=objective,
            lr=lr,
            eps=0.01,
            steps=6,
            batch_size=4,
            eval_every=2,
            run_dir=tmp_path / str(lazy),
            quiet=True,
        )
        assert isinstance(task.train, list) != lazy
        ends.append((tmp_path / str(lazy) / "trajectory.jsonl").read_bytes())
    assert ends[0] == ends[1]


def test_a_dry_run_anchors_the_batch_that_it_measures():

    task = classes(Lazy(labelled, 20))
    metric = resolve(RUNS["kl"][3])
    found = DryRun.of(torch.nn.Linear(4, 2), task, metric, Settings(steps=3, batch_size=4))
    assert found.forwards == 2


def test_a_part_of_the_anchored_examples_is_known_by_its_places():
    rows = [labelled(i) for i in range(6)]
    task, base, tuned = classes(rows), torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)
    task.anchor(base, rows)
    kl = TaskObjective(task, zoopt.get_objective("kl_to_base"))
    apart = [kl.value(tuned, Drawn(rows, [i])) for i in (4, 1)]
    assert kl.value(tuned, Drawn(rows, [4, 1])) == pytest.approx(np.mean(apart))
    assert kl.value(base, Drawn(rows, [4, 1])) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match=r"not all of these are stored.*Drawn\(examples, indices"):
        kl.value(tuned, rows[:2])
