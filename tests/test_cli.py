"""The command line, end to end on a tiny local model."""

import json
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from zoopt.cli import main
from zoopt.tuning.pretrained import load
from zoopt.tuning.report import evaluation

WORDS = ["<pad>", "<unk>", *"abcdefgh", "good", "bad", "it", "was", "terrible", "great", "<mask>"]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(evaluation, "_RESAMPLES", 20)


@pytest.fixture
def config(tmp_path):
    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=64,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
        )
    )
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    generator = torch.Generator().manual_seed(0)
    lines = ["text,label"]
    for i in range(60):
        letters = torch.randint(0, 8, (4,), generator=generator).tolist()
        text = " ".join("abcdefgh"[k] for k in letters)
        lines.append(f"{text} {'abcdefgh'[i % 8]},{'good' if letters[0] < 4 else 'bad'}")
    (tmp_path / "data.csv").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    job = {
        "model": str(tmp_path / "model"),
        "run_dir": str(tmp_path / "run"),
        "task": {
            "kind": "verbalizer",
            "template": "{text} it was",
            "verbalizer": {"bad": "bad", "good": "good"},
        },
        "data": {"train": str(tmp_path / "data.csv"), "dev_size": 10},
        "objective": "cross_entropy",
        "lr": 1e-3,
        "eps": 1e-2,
        "steps": 6,
        "eval_every": 3,
        "batch_size": 4,
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def test_tune_replay_and_eval(config, capsys, tmp_path):
    assert main(["tune", str(config), "--steps", "8", "--quiet"]) == 0
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["steps"] == 8
    tuned = LlamaForCausalLM.from_pretrained(tmp_path / "run/best")
    assert main(["replay", str(tmp_path / "run"), "--out", str(tmp_path / "again")]) == 0
    again = LlamaForCausalLM.from_pretrained(tmp_path / "again")
    for (name, a), b in zip(tuned.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name
    weights = ["--weights", str(tmp_path / "run/best"), "--split", "dev"]
    assert main(["eval", str(config), *weights]) == 0
    assert "cross_entropy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("multiple_choice", {"template": "{text} it was {choice}"}),
        ("multiple_choice", {"template": "it {choice}", "choices": {"0": "{text}", "1": "a"}}),
        ("paper", {"name": "sst2"}),
        ("masked", {"template": "{text} {mask}", "verbalizer": {"0": "bad", "1": "good"}}),
        ("similarity", {"columns": ["text", "sentence"]}),
    ],
)
def test_kinds_of_task_are_evaluated_from_a_file(kind, options, config, capsys, tmp_path):
    job = yaml.safe_load(config.read_text())
    rows = [
        {"text": text, "sentence": f"{text} a", "choices": ["good", "bad it"], "label": i % 2}
        for i, text in enumerate(["a b", "c", "d e f", "g"])
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    if kind == "masked":
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
        model = BertForMaskedLM(BertConfig(vocab_size=len(WORDS), num_attention_heads=2, **shape))
        model.save_pretrained(tmp_path / "model")
    job["task"] = {"kind": kind, **options}
    job["data"] = {"train": str(tmp_path / "data.jsonl"), "dev_size": 1}
    job["objective"] = "mse" if kind == "similarity" else "accuracy"
    config.write_text(yaml.safe_dump(job))
    assert main(["eval", str(config), "--split", "train"]) == 0
    printed = capsys.readouterr().out
    assert "3 train examples" in printed
    assert job["objective"] in printed


def test_an_existing_run_with_other_settings_is_not_touched(config, capsys, tmp_path):
    assert main(["tune", str(config), "--quiet"]) == 0
    log = (tmp_path / "run/trajectory.jsonl").read_bytes()
    assert main(["tune", str(config), "--quiet", "--lr", "1"]) == 2
    assert "lr: 0.001 there, 1.0 now" in capsys.readouterr().err
    assert (tmp_path / "run/trajectory.jsonl").read_bytes() == log


@pytest.mark.parametrize("what", ["objectives", "estimators", "directions", "tasks", "updates"])
def test_list(what, capsys):
    assert main(["list", what]) == 0
    expected = {
        "objectives": "f1_macro",
        "estimators": "mezo",
        "directions": "rademacher",
        "tasks": "verbalizer",
        "updates": "adam",
    }
    assert expected[what] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "acuracy"], "Did you mean 'accuracy'"),
        (["--objective", "os:getcwd"], "add --trust"),
        (["--objective", "words(target=3) - 0.1 * os:getcwd"], "add --trust"),
        (["--model", "./nowhere"], "nowhere does not exist"),
        (["--data.train", "nowhere.csv"], "no such data file"),
        (["--task.kind", "verbaliser"], "Did you mean 'verbalizer'"),
        (["--task.verbalizer", "{bad: bad}"], "a word for each of two labels"),
        (["--task.kind", "head"], "task.verbalizer does not apply to a task of kind 'head'"),
        (["--data.train", ""], "data.train is empty"),
        (["--dtype", "flot32"], "no dtype is called 'flot32'. Did you mean 'float32'?"),
        (["--update_options", "{betaa: 3}"], "update rule 'sgd' takes no options"),
        (["--update", "adam", "--update_options", "{beta: 3}"], "Did you mean 'beta"),
        (["--params", "[model.*, encodr.*]"], "'encodr.*' in params chose no trainable parameter"),
        (["--task.template", "{text} {"], "template '{text} {'"),
        (["--task.verbalizer", "{true: good, false: bad}"], "put them in quotes"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(config, capsys, arguments, message):
    assert main(["tune", str(config), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_error_in_the_users_own_code_is_shown_with_its_lines(
    config, capsys, tmp_path, monkeypatch
):
    (tmp_path / "my_metrics.py").write_text(
        "import zoopt\n"
        "@zoopt.register_objective('broken', higher_is_better=True)\n"
        "def broken(predictions, references):\n"
        "    return {}[1]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    arguments = ["--objective", "my_metrics:broken", "--trust", "--quiet"]
    assert main(["tune", str(config), *arguments]) == 2
    said = capsys.readouterr().err
    assert 'my_metrics.py", line 4, in broken' in said
    assert "return {}[1]" in said
    assert "zoopt/tuning" not in said.replace("\\", "/")


@pytest.mark.parametrize("text", ["", "id,text\n1,good\n"], ids=["empty", "data"])
def test_a_file_that_is_no_config_is_not_printed(tmp_path, capsys, text):
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(SystemExit):
        main(["tune", str(path)])
    said = capsys.readouterr().err
    assert "not a YAML mapping of settings" in said
    assert len(said.splitlines()) == 1


def test_what_is_no_mistake_of_the_settings_is_one_sentence_too(
    config, capsys, tmp_path, monkeypatch
):
    assert main(["tune", str(config), "--quiet"]) == 0
    best = tmp_path / "run/best.safetensors"
    best.write_bytes(best.read_bytes()[:100])
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "zoopt replay: " in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["tune", str(config), "--quiet", "--run_dir", str(tmp_path / "other")]) == 2
    assert "zoopt tune: there are 2 processes" in capsys.readouterr().err


def test_what_is_measured_from_the_base_model_is_scored(config, capsys):
    job = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**job, "objective": "accuracy - 0.1 * kl_to_base"}))
    assert main(["tune", str(config), "--quiet"]) == 0
    capsys.readouterr()
    for weights in ([], ["--weights", f"{job['run_dir']}/best"]):
        assert main(["eval", str(config), "--split", "train", *weights]) == 0
        assert "kl_to_base" in capsys.readouterr().out


def test_a_folder_with_something_in_it_is_not_saved_over(config, capsys, tmp_path):
    assert main(["tune", str(config), "--quiet"]) == 0
    run, theirs = tmp_path / "run", tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("precious")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for subcommand in (["replay", str(run)], ["merge", str(run)]):
        for out in (theirs, theirs / "thesis.txt", run):
            capsys.readouterr()
            assert main([*subcommand, "--out", str(out)]) == 2
            assert "exists and is not an empty folder" in capsys.readouterr().err
    assert (theirs / "thesis.txt").read_text() == "precious"
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (theirs / "thesis.txt").unlink()
    assert main(["replay", str(run), "--out", str(theirs)]) == 0
    assert (theirs / "model.safetensors").exists()


def test_a_classifier_that_pads_with_token_0_is_loaded_so(tmp_path):
    words = ["<pad>", "<unk>", "<eos>", "good", "bad"]
    tokens = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>"
    ).save_pretrained(tmp_path)
    sizes = {"vocab_size": 5, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    LlamaForSequenceClassification(LlamaConfig(**sizes, **heads)).save_pretrained(tmp_path)
    model, tokenizer = load(
        str(tmp_path), "AutoModelForSequenceClassification", "float32", ("a", "b")
    )
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 64


def test_an_adapter_is_tuned_replayed_and_scored(config, capsys, tmp_path):
    job = yaml.safe_load(config.read_text())
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(1)
    base = LlamaForCausalLM.from_pretrained(job["model"])
    peft.get_peft_model(base, lora).save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(job["model"]).save_pretrained(tmp_path / "adapter")
    config.write_text(yaml.safe_dump({**job, "model": str(tmp_path / "adapter"), "lr": 0.1}))
    assert main(["tune", str(config), "--quiet"]) == 0
    run = str(tmp_path / "run")
    held = {}
    for step in ("0", "best", "last"):
        out = tmp_path / step
        assert main(["replay", run, "--to-step", step, "--out", str(out)]) == 0
        held[step] = load_file(out / "adapter_model.safetensors")
    best = load_file(tmp_path / "run/best/adapter_model.safetensors")
    assert all(torch.equal(best[name], held["best"][name]) for name in best)
    assert not any(torch.equal(held["0"][name], held["last"][name]) for name in best)
    assert main(["eval", str(config), "--weights", f"{run}/best", "--split", "train"]) == 0
    assert "train examples" in capsys.readouterr().out


def test_a_run_goes_on_where_its_model_and_data_have_moved(config, capsys, tmp_path):
    assert main(["tune", str(config), "--quiet"]) == 0
    job = yaml.safe_load(config.read_text())
    moved = {"--model": job["model"], "--data.train": job["data"]["train"]}
    for name, path in moved.items():
        there = Path(path)
        there.rename(there.with_name(f"moved-{there.name}"))
        moved[name] = str(there.with_name(f"moved-{there.name}"))
    arguments = [word for pair in moved.items() for word in pair]
    assert main(["tune", str(config), "--quiet", *arguments]) == 0
    rows = Path(moved["--data.train"])
    rows.write_text(rows.read_text().replace("h ", "g "))
    assert main(["tune", str(config), "--quiet", *arguments]) == 2
    assert "train.sha256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("step: 3", "steps"),
        ("learning_rate: 3", "lr"),
        ("verbalizer: {a: b}", "task.verbalizer"),
        ("data: {trian: rows.csv}", "data.train"),
        ("test: rows.csv", "data.test"),
    ],
)
def test_an_unknown_key_in_the_file_gets_the_nearest_one(config, capsys, line, near):
    kept = [x for x in config.read_text().splitlines() if x[:1] != " " and x[:4] not in line]
    config.write_text("\n".join([*(x for x in kept if x[-1] != ":"), line]) + "\n")
    with pytest.raises(SystemExit) as ended:
        main(["tune", str(config)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"Did you mean {near!r}?\n")


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["tune", "--stepz", "3"], "steps"),
        (["tune", "--task.kin", "head"], "task.kind"),
        (["replay", "run", "--step", "3"], "to-step"),
        (["inspekt", "run"], "inspect"),
    ],
)
def test_an_unknown_option_gets_the_nearest_one(capsys, arguments, near):
    with pytest.raises(SystemExit):
        main(arguments)
    assert capsys.readouterr().err.endswith(f"Did you mean {near!r}?\n")


def test_a_dry_run_writes_nothing(config, capsys, tmp_path):
    there = sorted(tmp_path.rglob("*"))
    assert main(["tune", str(config), "--dry-run", "--steps", "8", "--params", '["*norm*"]']) == 0
    said = capsys.readouterr().out
    assert yaml.safe_load(said[: said.index("parameters")].strip())["steps"] == 8
    assert "48 of " in said, "three norms of 16"
    assert "48 in 3 tensors, lr 0.001, eps 0.01" in " ".join(said.split())
    assert "8 steps" in said
    assert sorted(tmp_path.rglob("*")) == there


def test_runs_are_inspected_compared_and_merged(config, capsys, tmp_path):
    for seed in ("0", "1"):
        arguments = ["--quiet", "--seed", seed, "--run_dir", str(tmp_path / seed)]
        assert main(["tune", str(config), *arguments]) == 0
    runs = [str(tmp_path / "0"), str(tmp_path / "1")]
    assert main(["inspect", runs[0]]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "stopped steps (6)" in said
    assert "steps 6 of 6" in said
    assert main(["diff", runs[0], runs[0]]) == 0
    assert main(["diff", *runs]) == 1
    assert "first step with other seeds: 0" in capsys.readouterr().out
    assert main(["merge", *runs, "--out", str(tmp_path / "merged")]) == 0
    assert "evaluate it before use" in capsys.readouterr().out
    main(["replay", runs[0], "--to-step", "0", "--out", str(tmp_path / "base")])
    weights = {}
    for name in ("merged", "base"):
        model = LlamaForCausalLM.from_pretrained(tmp_path / name)
        weights[name] = torch.cat([p.detach().flatten() for p in model.parameters()])
    ends = []
    for run, name in zip(runs, ("first", "second"), strict=True):
        out = tmp_path / name
        assert main(["replay", run, "--to-step", "last", "--out", str(out)]) == 0
        model = LlamaForCausalLM.from_pretrained(out)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    expected = ends[0] + ends[1] - weights["base"]
    torch.testing.assert_close(weights["merged"], expected, rtol=0, atol=1e-6)


def test_a_run_from_python_is_not_replayed_from_here(capsys, tmp_path):
    (tmp_path / "config.yaml").write_text("steps: 3\n")
    assert main(["replay", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "zoopt.replay(model, run)" in capsys.readouterr().err


def test_as_a_module_a_users_mistake_is_a_message_and_no_traceback(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "zoopt", "inspect", str(tmp_path)], capture_output=True, text=True
    )
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
    assert "zoopt inspect:" in found.stderr


def test_an_encoder_decoder_is_loaded_for_generation(tmp_path, config):
    sizes = {"vocab_size": 8, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))
    model.save_pretrained(tmp_path / "t5")
    tokenizer = AutoTokenizer.from_pretrained(yaml.safe_load(config.read_text())["model"])
    tokenizer.save_pretrained(tmp_path / "t5")
    loaded, _ = load(str(tmp_path / "t5"), "AutoModelForCausalLM", "float32")
    assert isinstance(loaded, T5ForConditionalGeneration)


@pytest.fixture
def classifier(config, tmp_path):
    """A job of a trained head with two outputs, ham and spam, and labels that are numbers."""
    job = yaml.safe_load(config.read_text())
    sizes = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "id2label": {0: "ham", 1: "spam"}}
    model = LlamaForSequenceClassification(LlamaConfig(**sizes, **heads, pad_token_id=0))
    model.save_pretrained(tmp_path / "head")
    AutoTokenizer.from_pretrained(job["model"]).save_pretrained(tmp_path / "head")
    rows = [f"{text},{n % 2}" for n, text in enumerate("abcdefgh")]
    (tmp_path / "numbers.csv").write_text("\n".join(["text,label", *rows]))
    job |= {"model": str(tmp_path / "head"), "data": {"train": str(tmp_path / "numbers.csv")}}
    job["task"] = {"kind": "head", "labels": [0, 1]}
    config.write_text(yaml.safe_dump(job))
    return config


def test_labels_may_be_numbers_and_the_saved_model_has_their_names(classifier, tmp_path, caplog):
    assert main(["tune", str(classifier), "--quiet"]) == 0
    assert "are named ham, spam, but labels are 0, 1" in caplog.text
    saved = json.loads((tmp_path / "run/best/config.json").read_text())
    assert saved["id2label"] == {"0": "0", "1": "1"}
    assert saved["label2id"] == {"0": 0, "1": 1}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], "task.labels is []: name the classes in the order of the model's outputs, as labels"),
        (["a", "b", "c"], "has 2 outputs, ham, spam, but labels has 3: a, b, c. Name one label"),
    ],
)
def test_labels_that_do_not_fit_the_head_are_told(classifier, capsys, labels, said):
    job = yaml.safe_load(classifier.read_text())
    job["task"]["labels"] = labels
    classifier.write_text(yaml.safe_dump(job))
    assert main(["tune", str(classifier), "--quiet"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_labels_that_yaml_reads_as_booleans_are_to_be_quoted(classifier, tmp_path, capsys):
    path = tmp_path / "numbers.csv"
    path.write_text(path.read_text().replace(",1", ",yes").replace(",0", ",no"))
    text = classifier.read_text()
    unquoted = text.replace("- 0\n", "- no\n").replace("- 1\n", "- yes\n")
    assert unquoted != text
    classifier.write_text(unquoted)
    assert main(["tune", str(classifier), "--quiet"]) == 2
    assert "YAML reads yes and no as True and False: put them in quotes" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--params", "*q_proj*"], ["--params", '["*q_proj*"]']])
def test_one_pattern_and_one_sink_need_no_list(config, tmp_path, given):
    assert main(["tune", str(config), "--quiet", *given, "--sinks", "csv"]) == 0
    kept = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (kept["params"], kept["sinks"]) == (["*q_proj*"], ["csv"])
    assert (tmp_path / "run/metrics.csv").exists()
