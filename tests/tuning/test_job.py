"""From settings to a task: every kind is made, and nothing that is set goes unheard."""

import inspect
from dataclasses import replace

import pytest

from zoopt.tasks import TASKS, paper_task, prompts
from zoopt.tuning import loading
from zoopt.tuning.job import DataSettings, Job, TaskSettings


def test_every_kind_takes_settings_by_the_names_of_its_arguments():
    assert set(loading._TAKEN) == {*TASKS, "paper"}
    known = set(inspect.signature(TaskSettings).parameters)
    for kind, taken in loading._TAKEN.items():
        assert {*taken} <= known
        made = TASKS.get(kind, paper_task)
        bases = made.__mro__ if inspect.isclass(made) else [made]
        arguments = {name for base in bases for name in inspect.signature(base).parameters}
        assert {*taken} <= arguments, kind
    assert known == {*loading._ANY, *(name for taken in loading._TAKEN.values() for name in taken)}


def test_a_paper_task_without_data_is_read_from_the_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(loading, "read_splits", lambda data: asked.append(data) or {"train": []})
    settings = TaskSettings(kind="paper", name="rte")
    job = Job(model="none", task=settings, data=DataSettings(dev_size=500))
    for data in (job.data, DataSettings(train="rows.jsonl")):
        with pytest.raises(ValueError, match="no training examples"):
            loading.make_task(replace(job, data=data), tokenizer=None)
    hub = "aps/super_glue/rte"
    assert asked == [
        DataSettings(train=f"{hub}:train", test=f"{hub}:validation", dev_size=500),
        DataSettings(train="rows.jsonl"),
    ]


def test_models_are_loaded_by_what_the_task_asks(monkeypatch):
    asked = []
    monkeypatch.setattr(
        loading.pretrained, "load", lambda *given: asked.append(given) or (None, None)
    )
    for settings in (
        TaskSettings(),
        TaskSettings(kind="masked"),
        TaskSettings(kind="similarity"),
        TaskSettings(kind="head", labels=("a", "b", "c")),
        *(TaskSettings(kind="paper", name="rte", masked=masked) for masked in (True, False)),
    ):
        loading.load_model(Job(model="m", task=settings))
    causal, masked = "AutoModelForCausalLM", "AutoModelForMaskedLM"
    sequence = "AutoModelForSequenceClassification"
    assert [given[1] for given in asked] == [causal, masked, "AutoModel", sequence, masked, causal]
    assert asked[3][3] == ("a", "b", "c")
    with pytest.raises(KeyError, match="Did you mean 'sst2'"):
        loading.load_model(Job(model="m", task=TaskSettings(kind="paper", name="sst")))


@pytest.mark.parametrize("name", prompts.SOURCES)
def test_data_sets_are_named_by_owner_name_and_perhaps_configuration(name):
    assert 1 <= prompts.SOURCES[name].hub.count("/") <= 2
