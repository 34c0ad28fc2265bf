import json
import math
import platform
from functools import partial

import pandas as pd
import pytest
import torch

import zoopt
from benchmarks import batches
from benchmarks.finetune import toy
from benchmarks.step_cost import (
    batched,
    gpu,
    heap,
    kernel,
    methods,
    report,
    rounds,
    run,
    steps,
    targets,
)
from benchmarks.step_cost.case import Case
from benchmarks.step_cost.reference import FourPasses
from benchmarks.step_cost.results import Results
from zoopt.tasks import TaskObjective


def tiny():
    model = torch.nn.Linear(6, 3).eval()

    @torch.no_grad()
    def value():
        return model(torch.ones(2, 6)).square().mean().item()

    return model, value


def test_a_step_of_the_reference_is_theta_minus_lr_c_z():
    theta = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    before = theta.detach().clone()
    reference = FourPasses([theta], lr=0.1, eps=1e-4)
    seed, c = reference.step(lambda: (theta.detach() ** 2).sum().item())
    torch.manual_seed(seed)
    z = torch.normal(0.0, 1.0, theta.shape, dtype=theta.dtype)
    assert math.isclose(c, 2 * (before @ z).item(), rel_tol=1e-6)  # exact for a quadratic
    torch.testing.assert_close(theta.detach(), before - 0.1 * c * z)


def tiny_population():
    model = torch.nn.Linear(6, 3).eval()

    def values(population):
        rows = model(population.expand(torch.ones(2, 6)))
        return population.per_probe(rows).square().mean((1, 2))

    return model, values


def broken(model, value):
    raise ValueError("does not fit\nand more")


@pytest.mark.filterwarnings("ignore")  # the rivals' own
def test_every_configuration_is_a_row_and_a_failed_one_has_its_reason(tmp_path):
    pytest.importorskip("nevergrad")
    pytest.importorskip("torchzero")
    rivals = methods.TORCHZERO | methods.NEVERGRAD | {"broken": broken}
    cases = {
        steps.HEADLINE: Case(tiny, methods.COMPARED | rivals, rounds=2, peaks=(methods.FLOOR,)),
        kernel.ONE_TENSOR: Case(
            partial(kernel.one_tensor, torch.float32, 64), kernel.METHODS, rounds=2
        ),
        batched.prefill(2): Case(tiny_population, batched.methods(2), rounds=2),
        "not there": Case(partial(broken, None, None), kernel.METHODS, rounds=2),
    }
    found = Results.measured(cases)
    rows = found.rows.set_index(["case", "method"])
    assert len(rows) == sum(len(case.methods) for case in cases.values())
    failed = rows["reason"].dropna()
    assert set(failed.index.get_level_values("case")) == {steps.HEADLINE, "not there"}
    assert set(failed[steps.HEADLINE].index) == {"broken", "nevergrad CMA"}
    assert failed[steps.HEADLINE, "broken"] == "ValueError: does not fit"
    assert (rows["ratio"].drop(failed.index) > 0).all()
    assert "not measured" in set(targets.table(found)["holds"])
    run.write(found, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"step_cost.{kind}" for kind in ("json", "csv", "md", "png")}
    assert set(report.tables(found)) == {
        "targets",
        "step-cost",
        "small",
        "kernel",
        "forwards",
        "batched",
    }


def test_cases_that_are_measured_anew_replace_theirs_and_keep_the_rest(tmp_path):
    first = {name: Case(tiny, methods.COMPARED, rounds=1) for name in (steps.HEADLINE, "b", "c")}
    measured = Results.measured(first)
    run.write(measured, tmp_path)
    before = Results.read(tmp_path / "step_cost.json")
    for read, written in zip(before, measured, strict=True):
        written = written.reset_index(drop=True)
        pd.testing.assert_frame_equal(read, written, check_dtype=False, rtol=1e-4)
    anew = Results.measured({"b": Case(tiny, methods.COMPARED, rounds=2)})
    found = before.renewed(first, anew)
    assert list(found.rows["case"].unique()) == list(first)
    rounds = found.rows.groupby("case")["rounds"].unique()
    assert (rounds[steps.HEADLINE], rounds["b"], rounds["c"]) == (1, 2, 1)
    assert found.samples["case"].value_counts()["b"] == 2 * len(methods.COMPARED)


def test_pages_show_what_the_results_have():
    found = Results.read(run.HERE / "results" / "step_cost.json")
    page = run.PAGE.read_text(encoding="utf-8")
    for name, table in report.tables(found).items():
        assert f"<!-- {name} -->\n{table.rstrip()}\n<!-- /{name} -->" in page
    assert report.summary(found).rstrip() in run.README.read_text(encoding="utf-8")
    samples = json.loads(heap.FILE.read_text(encoding="utf-8"))["samples"]
    assert heap.table(pd.DataFrame(samples)).rstrip() in page


def test_the_loss_between_words_is_a_verbalizers(monkeypatch):
    rows = toy.examples("train", 8)
    monkeypatch.setattr(batches.models, "examples", lambda split: rows)
    model, tokenizer = toy.load(torch.float64)
    words = {label: f" {label}" for label in batches.LABELS}
    task = zoopt.Verbalizer(rows, tokenizer=tokenizer, template=batches.TEMPLATE, verbalizer=words)
    expected = TaskObjective(task, zoopt.get_objective("cross_entropy")).value(model, rows)
    with torch.no_grad():
        found = batches.options_loss(model, batches.options(tokenizer, 8))
    assert math.isclose(found.item(), expected, rel_tol=1e-6)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_steps_with_and_without_kept_memory_are_in_processes_of_their_own(monkeypatch):
    for name in ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    cases = {"tiny": Case(tiny_population, batched.methods(2), rounds=1)}
    samples = heap.measured(cases, rounds=2, threads=1)
    assert list(samples["kept"]) == [True] * 5 + [False] * 10 + [True] * 5
    assert (samples["seconds"] > 0).all()
    assert (samples["peak_mb"] > 50).all()
    lines = heap.table(samples).splitlines()
    assert len(lines) == 2 + 5
    assert lines[2].startswith("| tiny: K rows |")
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    with pytest.raises(RuntimeError, match="freed memory cannot be kept here"):
        heap.sample(cases["tiny"], keep=True)


def test_forwards_in_a_gpu_s_queue_are_timed_without_waiting_for_them(monkeypatch):
    """The queue here is a list, and what is done in it takes as long as it says."""
    queue = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = len(queue)

        def elapsed_time(self, end):
            return sum(queue[self.at : end.at])

    waited = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(len(queue)))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = rounds.Clock()
    forward = clock.timed(lambda: queue.append(250))

    def step():
        forward()
        queue.append(1000)  # a pass
        forward()

    samples, _ = rounds.alternate({"step": rounds.visit_of(step)}, 2, clock)
    assert samples["forward"].tolist() == [0.5, 0.5]
    assert waited == [0, 3, 3, 6, 6, 9]  # before and after a step, and never in it


def test_the_benchmark_of_a_gpu_at_toy_size_on_the_cpu(monkeypatch):
    monkeypatch.setitem(gpu.models.OPT_SHAPES, "1.3b", (16, 1, 2))
    monkeypatch.setitem(gpu.models.LLAMA_SHAPES, "1b", (32, 16, 1, 4, 100))
    found = Results.measured(gpu.cases(["1.3b"], "cpu", rounds=1))
    shown = gpu.tables(found)
    assert "not measured" not in shown
    assert found.rows["reason"].isna().all()
    assert gpu.name_of("1.3b") in shown


def test_a_case_keeps_its_rows_where_one_configuration_fails():
    whole = {methods.FLOOR: methods.two_forwards, "broken": broken}
    found = Results.measured({"c": Case(tiny, whole, rounds=1, peaks=(*whole,))})
    rows = found.rows.set_index("method")
    assert rows["peak_mb"].notna().to_dict() == {methods.FLOOR: True, "broken": False}
    assert rows["reason"]["broken"] == "ValueError: does not fit"
    without_floor = {"broken": broken, methods.FLOOR: methods.two_forwards}
    found = Results.measured({"c": Case(tiny, without_floor, rounds=1)})
    assert found.rows["ratio"].isna().all()
    assert found.rows["seconds"].notna().sum() == 1


def test_no_configuration_leaves_theta_elsewhere():
    model, value = tiny()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for make in methods.COMPARED.values():
        with make(model, value)() as step:
            step()
        for parameter, kept in zip(model.parameters(), before, strict=True):
            torch.testing.assert_close(parameter.detach(), kept, rtol=0, atol=1e-5)
