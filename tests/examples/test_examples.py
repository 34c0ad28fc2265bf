"""Every example runs as its user would run it, in few steps, and ends in a report."""

import io
import runpy
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from zoopt.objectives import registry
from zoopt.tuning.report import evaluation

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDS = ["<pad>", "<unk>", "good", "bad", "sad", "happy", "dog", '"Hello!"', "said", "Tom", "."]
WORDS += ["positive", "negative"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a random language model of thirteen words."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=64
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        **{"vocab_size": len(WORDS), "hidden_size": 8, "intermediate_size": 16, "pad_token_id": 0},
        **{"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1},
    )
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs an example's file with options, and gives what it prints."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(registry, "_metrics", {m.name: m for m in registry.objectives().values()})
    monkeypatch.setattr(evaluation, "_RESAMPLES", 20)  # or intervals take most of the time
    monkeypatch.setenv("COLUMNS", "160")

    def run(name, *options):
        folder = tmp_path / "run"
        file = str(EXAMPLES / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [file, "--run-dir", str(folder), *options])
        runpy.run_path(file, run_name="__main__")
        assert (folder / "report.html").exists()
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("custom_metric", "cost"),
        ("sklearn_scorer", "fbeta_score"),
        ("torchmetrics_metric", "ConcordanceCorrCoef"),
    ],
)
def test_an_example_runs(name, metric, run):
    assert f"\n {metric} " in run(name, "--steps", "2")


@pytest.mark.parametrize(
    ("name", "metric"),
    [("grpo_reward", "speech_reward+length_reward"), ("cheerful_stories", "cheerful")],
)
def test_an_example_with_a_language_model_runs_with_another_model(name, metric, tiny, run):
    assert f"\n {metric} " in run(name, "--steps", "1", "--model", str(tiny))


def test_a_scorer_is_chosen_by_name(run):
    printed = run("sklearn_scorer", "--steps", "1", "--scorer", "matthews_corrcoef")
    assert "\n matthews_corrcoef " in printed


def test_examples_are_short_and_all_are_in_the_readme():
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.yaml")]:
        assert path.name in readme, path.name
    for path in EXAMPLES.glob("*.py"):
        if path.stem not in ("fetch", "stories"):  # which bring models and data
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, path.name


def test_the_preference_example_runs_on_ratings_of_another_archive(tiny, run, tmp_path):
    rng = np.random.default_rng(0)
    names = ("movieReviewSnippets_GroundTruth", "movieReviewSnippets_anonDataRatings")
    lines = ["", ""]
    for item in range(1, 49):
        scores = rng.integers(-4, 5, size=15).tolist()
        lines[0] += f"{item}\t{np.mean(scores)}\t{' '.join(rng.choice(WORDS[2:], 5))}\n"
        lines[1] += f"{item}\t{np.mean(scores)}\t{np.std(scores)}\t{scores}\n"
    inner = archive(
        {f"hutto_ICWSM_2014/{n}.txt": t.encode() for n, t in zip(names, lines, strict=True)}
    )
    name = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
    (tmp_path / "sdist.tar.gz").write_bytes(archive({name: inner}))
    printed = run(
        *("human_preference", "--model", str(tiny), "--steps", "2", "--sentences", "48"),
        *("--ratings", str(tmp_path / "sdist.tar.gz")),
    )
    assert "two of the held-out people agree on" in printed
    assert "\n win_rate " in printed


def archive(files):
    """A compressed tar of files, as bytes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()
