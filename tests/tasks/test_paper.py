"""The paper's tasks: prompts letter by letter, labels, and the numbers that are reported."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, LlamaForCausalLM

import zoopt
from zoopt.tasks import paper, prompts

WORDS = ["<pad>", "<unk>", "<mask>", "a", "b", "c", "It", "was", "This", "is", "so", "because"]
WORDS += ["terrible", "bad", "okay", "good", "great", "No", "Maybe", "Yes", "incorrect", "correct"]
WORDS += ["Description", "Entity", "Expression", "Human", "Location", "Number"]
WORDS += ["subjective", "objective"]

ROWS = {
    "sst2": {"sentence": "a fine film ", "label": 1},
    "rte": {"premise": "It rained.", "hypothesis": "The street is wet.", "label": 0},
    "cb": {"premise": "It rained.", "hypothesis": "it snowed", "label": 1},
    "boolq": {"passage": "Ice floats.", "question": "does ice float", "answer": True},
    "wsc": {"text": "Ann paid Bo. She left.", "span1_text": "Ann", "span2_text": "She", "label": 1},
    "wic": {"word": "bank", "sentence1": "A bank.", "sentence2": "The bank.", "label": 0},
    "multirc": {"paragraph": "It rained.", "question": "What?", "answer": "Rain", "label": 1},
    "copa": {
        "premise": "I fell.",
        "question": "cause",
        "choice1": "I slipped.",
        "choice2": "The sun shone.",
        "label": 0,
    },
    "record": {
        "passage": "Ann met Bo.\n@highlight\nThey talked.",
        "query": "Later @placeholder left.",
        "entities": ["Bo", "Ann", "Ann B."],
        "answers": ["Ann", "Ann B."],
    },
    "squad": {
        "title": "Paris",
        "context": "Paris is in France.",
        "question": " Where is Paris?",
        "answers": {"text": ["France", "in France"], "answer_start": [12, 9]},
    },
    "drop": {
        "passage": "Two and one.",
        "question": "How many?",
        "answers_spans": {"spans": ["3"], "types": ["number"]},
    },
    "sst5": {"text": "a film", "label": 4, "label_text": "very positive"},
    "mr": {"text": "a film", "label": 0},
    "cr": {"text": "a phone", "label": 1, "label_text": "positive"},
    "mnli": {"premise": "It rained.", "hypothesis": "The sun shone.", "label": 2},
    "snli": {"premise": "It rained", "hypothesis": "It was wet.", "label": 0},
    "qnli": {"question": "Who left?", "sentence": "Ann left.", "label": 1},
    "trec": {"text": "Who left ?", "label_coarse_original": "HUM"},
    "cola": {"sentence": "Left Ann.", "label": 0},
    "subj": {"text": "a film", "label": 1, "label_text": "subjective"},
}

CAUSAL = {
    "sst2": ["a fine film It was"],
    "rte": ['It rained.\nDoes this mean that "The street is wet." is true? Yes or No?\n'],
    "cb": ['Suppose It rained. Can we infer that "it snowed"? Yes, No, or Maybe?\n'],
    "boolq": ["Ice floats. Does ice float?\n"],
    "wsc": [
        "Ann paid Bo. She left.\n"
        'In the previous sentence, does the pronoun "she" refer to Ann? Yes or No?\n'
    ],
    "wic": [
        'Does the word "bank" have the same meaning in these two sentences? Yes, No?\n'
        "A bank.\nThe bank.\n"
    ],
    "multirc": [
        'It rained.\nQuestion: What?\nI found this answer "Rain". Is that correct? Yes or No?\n'
    ],
    "copa": ["I fell because I slipped.", "I fell because the sun shone."],
    "record": [
        "Ann met Bo.\n- They talked.\n- Later Bo left.",
        "Ann met Bo.\n- They talked.\n- Later Ann left.",
        "Ann met Bo.\n- They talked.\n- Later Ann B. left.",
    ],
    "squad": ["Title: Paris\nContext: Paris is in France.\nQuestion: Where is Paris?\nAnswer:"],
    "drop": ["Passage: Two and one.\nQuestion: How many?\nAnswer:"],
}

MASKED = {
    "sst2": "a fine film It was <mask>.",
    "sst5": "a film It was <mask>.",
    "mr": "a film It was <mask>.",
    "cr": "a phone It was <mask>.",
    "mnli": "It rained? <mask>, the sun shone.",
    "snli": "It rained? <mask>, it was wet.",
    "rte": "It rained? <mask>, the street is wet.",
    "qnli": "Who left? <mask>, ann left.",
    "trec": "<mask>: Who left ?",
    "cola": "Left Ann. This is <mask>.",
    "subj": "a film This is <mask>.",
}

RIGHT_WORDS = {
    ("sst2", False): " great",
    ("rte", False): "Yes",
    ("cb", False): "No",
    ("boolq", False): "Yes",
    ("wsc", False): "Yes",
    ("wic", False): "No",
    ("multirc", False): "Yes",
    ("sst2", True): " great",
    ("sst5", True): " great",
    ("mr", True): " terrible",
    ("cr", True): " great",
    ("mnli", True): " No",
    ("snli", True): " Yes",
    ("rte", True): " Yes",
    ("qnli", True): " No",
    ("trec", True): " Human",
    ("cola", True): " incorrect",
    ("subj", True): " subjective",
}


@pytest.fixture(scope="module")
def words(word_level):
    return word_level(WORDS, mask_token="<mask>")


def make(name, tokenizer, masked=False, **options):
    return zoopt.paper_task(name, [ROWS[name]], tokenizer=tokenizer, masked=masked, **options)


def test_every_task_is_tested():
    assert set(CAUSAL) == set(prompts.CAUSAL)
    assert set(MASKED) == set(prompts.MASKED)
    assert set(ROWS) == set(prompts.SOURCES)


@pytest.mark.parametrize("name", CAUSAL)
def test_prompts_of_causal_models(words, name):
    task = make(name, words)
    (example,) = task.train
    assert [task.inputs.render(row) for row in task.rows(example)] == CAUSAL[name]


@pytest.mark.parametrize("name", MASKED)
def test_prompts_of_masked_models(words, name):
    task = make(name, words, masked=True)
    (example,) = task.train
    assert [task.inputs.render(row) for row in task.rows(example)] == [MASKED[name]]


@pytest.mark.parametrize(("name", "masked"), RIGHT_WORDS)
def test_the_hubs_labels_stand_for_the_right_words(words, name, masked):
    task = make(name, words, masked)
    (right,) = task.references(task.train)
    label = task.labels[right]
    assert paper.prompt(name, masked).options["verbalizer"][label] == RIGHT_WORDS[name, masked]


def test_names_of_labels_do_as_well_and_rows_without_label_are_left_out(words):
    rows = [{**ROWS["snli"], "label": label} for label in ("neutral", -1, 1)]
    task = zoopt.paper_task("snli", rows, tokenizer=words, masked=True)
    assert [task.labels[i] for i in task.references(task.train)] == ["neutral", "neutral"]


def test_choices_start_after_their_prompts(words):
    copa, record = make("copa", words), make("record", words)
    assert copa.prompt.format_map(copa.train[0]) == "I fell because"
    assert record.prompt.format_map(record.train[0]) == "Ann met Bo.\n- They talked.\n-"
    assert copa.references(copa.train).tolist() == [0]
    assert record.references(record.train).tolist() == [1]
    assert record.choices(record.train[0]) == [
        ("Later Bo left.",),
        ("Later Ann left.", "Later Ann B. left."),
    ]


def test_answers_are_generated_up_to_the_end_of_a_line(words):
    squad, drop = make("squad", words), make("drop", words)
    assert squad.references(squad.train).tolist() == [["France", "in France"]]
    assert drop.references(drop.train).tolist() == [["3"]]
    assert (squad.max_new_tokens, squad.stop) == (50, "\n")


@pytest.mark.parametrize(
    ("name", "masked", "metric"),
    [("sst2", False, "accuracy"), ("squad", False, "squad_f1"), ("cola", True, "mcc")],
)
def test_a_task_knows_what_it_is_reported_by(words, name, masked, metric):
    task = make(name, words, masked)
    assert task.metric == metric
    zoopt.TaskObjective(task, zoopt.get_objective(metric))


def test_an_objective_that_does_not_fit_is_told_the_usual_one(words):
    with pytest.raises(ValueError, match="the usual one is squad_f1"):
        zoopt.TaskObjective(make("squad", words), zoopt.get_objective("accuracy"))


def test_scores_are_those_of_the_words_after_the_prompt_alone(words, config):
    torch.manual_seed(0)
    config.vocab_size = len(words)
    model = LlamaForCausalLM(config).eval()
    for name in ("sst2", "rte", "cb", "boolq", "wsc", "wic", "multirc"):
        task = make(name, words)
        ids = words(CAUSAL[name][0], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            alone = model(ids).logits[0, -1]
        verbalizer = paper.prompt(name, False).options["verbalizer"]
        expected = [alone[words.convert_tokens_to_ids(w.strip())] for w in verbalizer.values()]
        np.testing.assert_allclose(task.predict(model, task.train), [expected], rtol=1e-4)


def test_scores_are_those_of_the_words_at_the_mask(words):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    model = BertForMaskedLM(BertConfig(vocab_size=len(words), num_attention_heads=2, **shape))
    for name, text in MASKED.items():
        task = make(name, words, masked=True)
        ids = words(text)["input_ids"]
        with torch.no_grad():
            alone = model.eval()(torch.tensor([ids])).logits[0, ids.index(words.mask_token_id)]
        verbalizer = paper.prompt(name, True).options["verbalizer"]
        expected = [alone[words.convert_tokens_to_ids(w.strip())] for w in verbalizer.values()]
        np.testing.assert_allclose(task.predict(model, task.train), [expected], rtol=1e-4)


def test_words_of_several_tokens_are_told_with_the_alternative(word_level):
    few = word_level([word for word in WORDS if word != "great"] + ["gr", "##eat"])
    few.add_tokens(["gre", "at"])
    with pytest.raises(ValueError, match=r"' great' for label 'positive' has 2 tokens.*Multiple"):
        make("sst2", few)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sst", {}, "Did you mean 'sst2'"),
        ("sst5", {}, "set masked=True"),
        ("copa", {"masked": True}, "set masked=False"),
    ],
)
def test_unknown_tasks_are_told(words, name, options, message):
    with pytest.raises(KeyError, match=message):
        zoopt.paper_task(name, [ROWS["sst2"]], tokenizer=words, **options)


def test_missing_columns_and_wrong_labels_are_told(words):
    with pytest.raises(KeyError, match=r"'copa' needs column 'question' of aps/super_glue/copa"):
        zoopt.paper_task("copa", [{"premise": "a", "label": 0}], tokenizer=words)
    task = zoopt.paper_task("sst2", [{"sentence": "a", "label": "ugly"}], tokenizer=words)
    with pytest.raises(ValueError, match=r"'ugly' .* not among the labels 'negative', 'positive'"):
        task.references(task.train)
