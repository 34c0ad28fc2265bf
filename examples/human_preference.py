"""Tune a language model to agree with people: which of two review sentences sounds more positive?

Fifteen people rated each sentence. The model learns from what the first eight preferred, and is
tested on other sentences against the other seven, beside how far these agree among themselves.
`make demo` fetches the model and the ratings; then `python examples/human_preference.py`.
"""

import argparse
import ast
import io
import os
import tarfile
from pathlib import Path

import pandas as pd
import transformers
from fetch import REVIEWS, REVIEWS_ARCHIVE, download, read_reviews

import zoopt

RATINGS = "hutto_ICWSM_2014/movieReviewSnippets_anonDataRatings.txt"


def read_ratings(sdist, sentences):
    """Sentences by id, and a row for each person's score of one; groups of four are compared."""
    texts = read_reviews(sdist).sample(sentences // 4 * 4, random_state=0)
    with tarfile.open(sdist) as outer:
        archive = io.BytesIO(outer.extractfile(REVIEWS_ARCHIVE).read())
    with tarfile.open(fileobj=archive) as inner:
        table = pd.read_csv(inner.extractfile(RATINGS), sep="\t", header=None, index_col=0)
    rows = [
        {"item": item, "rater": rater, "score": score, "group": place // 4}
        for place, item in enumerate(texts["id"])
        for rater, score in enumerate(ast.literal_eval(table.loc[item, 3]))
    ]
    return {row.id: {"text": row.text} for row in texts.itertuples()}, pd.DataFrame(rows)


if __name__ == "__main__":
    cache = Path(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt").expanduser()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=cache / "smollm2-135m-instruct")
    parser.add_argument("--ratings", help="the vaderSentiment sdist, if you have it")
    parser.add_argument("--sentences", type=int, default=900)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--run-dir", default="runs/human_preference")
    chosen = parser.parse_args()
    items, ratings = read_ratings(
        chosen.ratings or download(REVIEWS, cache / "downloads"), chosen.sentences
    )
    quarter = ratings["group"] * 4 // (ratings["group"].max() + 1)
    first, held_out = ratings["rater"] < 8, ratings[(ratings["rater"] >= 8) & (quarter == 0)]
    train, dev = (zoopt.preferences(ratings[first & q], items) for q in (quarter > 1, quarter == 1))
    print(f"two of the held-out people agree on {zoopt.agreement(held_out):.1%} of their choices")
    scorer = zoopt.Verbalizer(
        list(items.values()),
        tokenizer=transformers.AutoTokenizer.from_pretrained(chosen.model),
        template="Review: {text}\nSentiment:",
        verbalizer={"negative": " negative", "positive": " positive"},
        target="",
    )
    zoopt.tune(
        transformers.AutoModelForCausalLM.from_pretrained(chosen.model),
        task=zoopt.Preference(scorer, train, dev[:100], zoopt.preferences(held_out, items)),
        **{"objective": "win_rate", "surrogate_steps": chosen.steps, "steps": chosen.steps},
        # All below the last norm runs once a step and serves all 32 probes.
        **{"params": "model.norm.weight", "estimator": "nspsa", "n": 16, "eps": 0.05, "lr": 0.03},
        **{"batch_size": 16, "eval_every": 20, "run_dir": chosen.run_dir},
    )
