"""Data from every kind of file, disjoint splits, and batches that depend on the step alone."""

import pandas as pd
import pytest

import zoopt
from zoopt.tuning.data import Batches, check_examples, read_splits
from zoopt.tuning.files import read_examples
from zoopt.tuning.job import DataSettings

FRAME = pd.DataFrame({"text": ["one", "None", "three, with comma"], "label": ["a", "b", "a"]})


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_every_file_format_gives_the_same_examples(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    {
        ".csv": lambda: FRAME.to_csv(path, index=False),
        ".tsv": lambda: FRAME.to_csv(path, index=False, sep="\t"),
        ".jsonl": lambda: FRAME.to_json(path, orient="records", lines=True),
        ".json": lambda: FRAME.to_json(path, orient="records"),
        ".parquet": lambda: FRAME.to_parquet(path),
    }[suffix]()
    assert read_examples(str(path)) == FRAME.to_dict("records")


def test_datasets_and_frames_and_lists_are_taken_as_they_are():
    import datasets

    rows = FRAME.to_dict("records")
    assert read_examples(datasets.Dataset.from_pandas(FRAME)) == rows
    assert read_examples(FRAME) == rows
    assert read_examples(rows) == rows


@pytest.mark.parametrize(
    ("suffix", "text", "rows"),
    [
        (
            ".jsonl",
            '\ufeff{"a": "007", "d": "2020-01-01", "n": 1, "x": null}\n\n{"a": "é", "n": 0}\n',
            [{"a": "007", "d": "2020-01-01", "n": 1, "x": None}, {"a": "é", "n": 0}],
        ),
        (".json", '{"a": ["1", "2"], "n": [1, 2]}', [{"a": "1", "n": 1}, {"a": "2", "n": 2}]),
        (".json", '{"a": {"0": "1", "1": "2"}}', [{"a": "1"}, {"a": "2"}]),
        (
            ".csv",
            "zip,n,x,flag,date\r\n01234,7,0.5,true,2020-01-01\r\n98765,-2,1.0,false,NA\r\n",
            [
                {"zip": "01234", "n": 7, "x": 0.5, "flag": "true", "date": "2020-01-01"},
                {"zip": "98765", "n": -2, "x": 1.0, "flag": "false", "date": "NA"},
            ],
        ),
        (
            ".tsv",
            'text\tlabel\n"so-called film\tneg\ngood one\tpos\nan "odd" one\tpos\n',
            [
                {"text": '"so-called film', "label": "neg"},
                {"text": "good one", "label": "pos"},
                {"text": 'an "odd" one', "label": "pos"},
            ],
        ),
        (
            ".tsv",
            'text\tlabel\n"two\nlines"\tneg\n',
            [{"text": "two\nlines", "label": "neg"}],
        ),
    ],
    ids=["lines", "lists", "pandas", "separated", "tabs", "tabs and quotation"],
)
def test_values_are_what_the_file_says(tmp_path, suffix, text, rows):
    path = tmp_path / f"data{suffix}"
    path.write_bytes(text.encode())
    assert read_examples(path) == rows


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": ', r"line 2 of .*a\.jsonl is not valid JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', r"line 2 of .*a\.jsonl is list; expected an object"),
        ("a.json", "3", r"holds int; expected a list of objects"),
        ("a.csv", "", r"a\.csv cannot be read as a table: No columns .* names of the columns"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"a\.csv cannot be read as a table: .* in line 3"),
    ],
)
def test_a_file_of_something_else_is_told_so(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        read_examples(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json"])
def test_a_file_in_another_encoding_is_named(tmp_path, name):
    (tmp_path / name).write_bytes('{"text":\t"café"}\n'.encode("latin1"))
    with pytest.raises(ValueError, match=rf"{name} is not in UTF-8 \(.*iconv -f LATIN1"):
        read_examples(tmp_path / name)


def test_one_example_is_too_few_to_take_some_for_development(tmp_path):
    FRAME[:1].to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(ValueError, match=r"has 1 example\(s\), of which 1 would be taken for dev"):
        read_splits(DataSettings(train=str(tmp_path / "train.csv")))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        read_examples(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("squad", ("squad", None, "train")),
        ("rajpurkar/squad:validation", ("rajpurkar/squad", None, "validation")),
        ("nyu-mll/glue/sst2:test", ("nyu-mll/glue", "sst2", "test")),
    ],
)
def test_data_sets_of_the_hub_have_a_configuration_and_a_split(monkeypatch, name, asked):
    import datasets

    def load_dataset(path, name, split):
        assert (path, name, split) == asked
        return datasets.Dataset.from_pandas(FRAME)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_examples(name) == FRAME.to_dict("records")


def test_a_data_set_that_cannot_be_loaded_is_told_with_the_alternative(monkeypatch):
    import datasets

    def load_dataset(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(OSError, match=r"'glue/sst2' is not a \.csv.*no network.*local files"):
        read_examples("glue/sst2")


def test_an_example_in_two_splits_is_refused(tmp_path):
    FRAME.to_csv(tmp_path / "train.csv", index=False)
    FRAME[1:].to_csv(tmp_path / "test.csv", index=False)
    data = DataSettings(train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))
    with pytest.raises(ValueError, match=r"in both .* and test"):
        read_splits(data)


def test_development_examples_are_drawn_from_the_training_ones(tmp_path):
    """Of a file that is sorted by label, too, they have both labels."""
    rows = pd.DataFrame({"text": range(100), "label": ["a"] * 50 + ["b"] * 50})
    rows.to_csv(tmp_path / "train.csv", index=False)
    data = DataSettings(train=str(tmp_path / "train.csv"), dev_size=20)
    splits = read_splits(data)
    assert read_splits(data) == splits
    assert [len(splits[name]) for name in ("train", "dev", "test")] == [80, 20, 0]
    assert 5 < sum(row["label"] == "a" for row in splits["dev"]) < 15
    texts = [sorted(row["text"] for row in splits[name]) for name in ("train", "dev")]
    assert sorted(texts[0] + texts[1]) == list(range(100))
    assert [[row["text"] for row in splits[name]] for name in ("train", "dev")] == texts


def test_equal_examples_stay_on_one_side(tmp_path):
    path = tmp_path / "train.csv"
    pd.DataFrame({"text": [n // 3 for n in range(60)]}).to_csv(path, index=False)
    splits = read_splits(DataSettings(train=str(path), dev_size=10))
    assert len(splits["dev"]) == 9
    assert not {row["text"] for row in splits["train"]} & {row["text"] for row in splits["dev"]}
    with pytest.raises(ValueError, match="has 60 examples but only 20 different ones, each more"):
        read_splits(DataSettings(train=str(path), dev_size=2))


def test_batches_depend_on_the_step_alone_and_cover_each_epoch_once(blobs):
    _, task = blobs(n=80)
    first, second = Batches(task, 8, seed=3), Batches(task, 8, seed=3)
    drawn = [first(step) for step in range(5)]
    assert [second(step) for step in (4, 2, 0)] == [drawn[4], drawn[2], drawn[0]]
    texts = sorted(str(row["x"]) for batch in drawn for row in batch)
    assert texts == sorted(str(row["x"]) for row in task.train)
    assert Batches(task, 8, seed=4)(0) != drawn[0]


def test_a_batch_larger_than_the_data_is_all_of_it(blobs):
    _, task = blobs(n=80)
    assert len(Batches(task, 1000, seed=0)(7)) == len(task.train)


def test_a_stream_that_ends_is_read_once_and_drawn_from_for_epochs(blobs, settings, tmp_path):
    ends = []
    for stream in (False, True):
        model, task = blobs()
        options = {"labels": task.labels, "collate": task.collate}
        splits = (task.train, task.dev, task.test)
        given = [(row for row in split) if stream else split for split in splits]
        task = zoopt.HeadClassification(*given, **options)
        assert len(task.train) == 60
        settings |= {"steps": 20}  # of 7 batches an epoch
        zoopt.tune(model, task=task, run_dir=tmp_path / str(stream), **settings)
        ends.append((tmp_path / str(stream) / "trajectory.jsonl").read_bytes())
    assert ends[0] == ends[1]


def test_a_stream_without_an_example_is_an_error():
    with pytest.raises(ValueError, match="no training examples"):
        zoopt.HeadClassification(iter(()), labels=["a", "b"], collate=list)


def test_a_missing_cell_is_no_word(tmp_path):
    pd.DataFrame({"text": ["a", None], "n": [0.5, None]}).to_parquet(tmp_path / "data.parquet")
    assert read_examples(tmp_path / "data.parquet") == [{"text": "a", "n": 0.5}, {}]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_an_unknown_label_in_any_split_is_told_before_the_first_step(
    blobs, settings, tmp_path, split
):
    model, task = blobs()
    getattr(task, split)[7]["label"] = "perhaps"
    with pytest.raises(ValueError, match=f"{split} example 7: 'perhaps' in column 'label' is not"):
        zoopt.tune(model, task=task, run_dir=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (None, KeyError, "dev example 1: there is no value in column 'label' of"),
        (float("nan"), KeyError, "dev example 1: there is no value in column 'label' of"),
        ("much", ValueError, "dev example 1: 'much' in column 'label' is not a number"),
    ],
)
def test_a_value_that_is_no_number_is_told_with_its_place(value, error, said):
    rows = [{"x": 1.0, "label": 2}, {"x": 1.0, "label": value}]
    with pytest.raises(error, match=said):
        check_examples(zoopt.Regression(rows[:1], rows, collate=list))


def test_of_examples_that_are_made_when_asked_for_the_first_is_checked():
    class Made:
        def __len__(self):
            return 3

        def __getitem__(self, place):
            assert place == 0
            return {"x": 1.0, "label": "perhaps"}

    task = zoopt.HeadClassification(Made(), labels=["no", "yes"], collate=list)
    with pytest.raises(ValueError, match="train example 0: 'perhaps'"):
        check_examples(task)


def test_a_missing_text_is_told_with_its_place():
    class Words:
        pad_token_id, model_max_length = 0, 8

    rows = [{"text": "a"}, {"text": None}]
    task = zoopt.Generation(rows, tokenizer=Words(), template="{text}:", max_new_tokens=2)
    with pytest.raises(
        KeyError, match=r"train example 1: template '\{text\}:' needs column 'text'"
    ):
        check_examples(task)
