"""A folder's run goes on with what it began with, and says so where that is something else."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import fbeta_score, make_scorer
from torchmetrics.classification import BinaryFBetaScore

import zoopt
from zoopt.objectives.resolve import resolve
from zoopt.trajectory import TrajectoryError
from zoopt.tuning.folder.callables import described, is_code
from zoopt.tuning.folder.identity import identity_of
from zoopt.tuning.folder.run_folder import RunFolder, flat

CE = zoopt.metric("neg_log_loss")


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
        return identity_of(task, CE)["train"]

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
    assert identity_of(task, CE)["train"] == {"examples": 3}


def weighted(weights):
    def f(completions, **columns):
        return [float(len(text)) for text in completions]

    return zoopt.rewards([f, f], weights=weights, name="f")


@pytest.mark.parametrize(
    ("there", "now", "where"),
    [
        (make_scorer(fbeta_score, beta=2), make_scorer(fbeta_score, beta=0.1), "arguments.beta: 2"),
        (partial(fbeta_score, beta=2), partial(fbeta_score, beta=0.1), "arguments.beta: 2"),
        (weighted([1, 0.5]), weighted([0, 5]), r"weights: \[1, 0.5\]"),
        (
            BinaryFBetaScore(beta=2.0),
            BinaryFBetaScore(beta=0.1),
            "options.beta: 2.0",
        ),
        (
            zoopt.metric(lambda predictions, references: 0, higher_is_better=True),
            zoopt.metric(lambda predictions, references: 0, higher_is_better=False),
            "higher_is_better: True",
        ),
        (
            zoopt.combined("f1 - 0.5 * x", x=partial(fbeta_score, beta=2)),
            zoopt.combined("f1 - 0.5 * x", x=partial(fbeta_score, beta=0.1)),
            "metrics.1.arguments.beta: 2",
        ),
    ],
    ids=["scorer", "partial", "rewards", "torchmetrics", "direction", "combination"],
)
def test_other_arguments_of_an_objective_are_another_run(tmp_path, there, now, where):
    def told(objective):
        return {"objective": described(resolve(objective))}

    (tmp_path / "auto").mkdir()
    for _ in range(2):
        RunFolder(tmp_path, {}, told(there)).release()
    with pytest.raises(ValueError, match=rf"(?s)something else:\n  objective.{where}.*run_dir"):
        RunFolder(tmp_path, {}, told(now))


def test_a_run_with_another_weight_is_not_resumed(tmp_path):
    def objective(beta):
        return make_scorer(fbeta_score, beta=beta)

    half_a_run(tmp_path, objective=objective(2))
    with pytest.raises(ValueError, match=r"objective.arguments.beta: 2 there, 0.1 now"):
        run(tmp_path, objective=objective(0.1))
    assert run(tmp_path, objective=objective(2)).steps == 4


def written(body, name="share"):
    """A metric of a module that is written now, as in a file that was edited."""
    space = {}
    exec(f"def {name}(predictions, references):\n" + body, space)
    return zoopt.metric(space[name], higher_is_better=True)


SAME = """    return float((predictions == references).mean())"""


@pytest.mark.parametrize(
    ("body", "warned"),
    [
        (SAME, False),
        (f"    # the share that is right\n\n{SAME}", False),
        (f"    '''The share that is right.'''\n{SAME}", False),
        (SAME.replace("==", "!="), True),
        (SAME.replace("mean", "sum"), True),
        (SAME.replace("float(", "2.0 * float("), True),
    ],
)
def test_other_code_of_an_objective_is_told(tmp_path, caplog, body, warned):
    half_a_run(tmp_path, objective=written(SAME))
    assert run(tmp_path, objective=written(body)).steps == 4
    told = "began with other code:\n  objective.its code"
    assert (told in caplog.text) == warned


def chooses(no):
    class Words:
        pad_token_id, model_max_length = 0, 8

    return zoopt.MultipleChoice(
        [{"a": "x", "b": "y", "label": "no"}],
        tokenizer=Words(),
        template="{a}: {choice}",
        choices={"no": no, "yes": "{b}"},
    )


def test_other_code_of_collate_is_told_and_other_templates_of_choices_are_another_run(
    tmp_path, caplog
):
    half_a_run(tmp_path)
    task = task_of(rows_of(0))
    task.collate = lambda batch: collate(batch) * 1.0
    run(tmp_path, task)
    assert "made.collate.its code" in caplog.text

    folder = tmp_path / "choices"
    (folder / "auto").mkdir(parents=True)
    there, now = ({"made": identity_of(chooses(c), CE)["made"]} for c in ("{a}", "{b}"))
    RunFolder(folder, {}, there).release()
    with pytest.raises(ValueError, match=r"made.choices.no: '\{a\}' there, '\{b\}' now"):
        RunFolder(folder, {}, now)


def test_objects_are_told_by_their_types_and_a_judge_of_ones_own_by_its_code_too():
    class Judge:
        def __call__(self, a, b):
            return len(a) - len(b)

    class Harsh:
        def __call__(self, a, b):
            return len(b) - len(a)

    told = [described(zoopt.comparison(judge())) for judge in (Judge, Harsh)]
    assert told[0] != told[1]
    assert {name for name in told[0] if told[0][name] != told[1][name]} <= {
        *filter(is_code, told[0])
    }
    assert described(partial(max, network()))["arguments"]["0"].endswith("Sequential")


def test_values_that_a_function_holds_count_as_its_code_and_counters_do_not():
    def made(factor, calls):
        def metric(predictions, references, power=1):
            calls.append(1)
            return factor * len(predictions) ** power

        return described(metric)

    assert made(2.0, []) == made(2.0, [1, 1])
    (other,) = {k for k, v in flat(made(2.0, [])).items() if flat(made(3.0, []))[k] != v}
    assert other == "its closure.factor"
    assert is_code(other)


def test_a_folder_without_a_record_of_the_objective_is_resumed_and_gets_one(tmp_path):
    half_a_run(tmp_path)
    path = tmp_path / "identity.json"
    full = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in full.items() if k not in ("made", "objective")}))
    assert run(tmp_path).steps == 4
    assert json.loads(path.read_text()) == full


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_is_no_folder_of_a_run(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"run_dir .* a file: choose another run_dir"):
        RunFolder(tmp_path / "file" / below, {})
