"""Tune a reward model on human preference: which of two review sentences is more positive?

Fifteen people or more rated each sentence. A new scoring head on SmolLM2 learns from what the first
eight preferred, and is tested on other sentences against the others, beside their own agreement.
`make demo` fetches the model and the ratings; then `python examples/human_preference.py`.
"""

import argparse
import os
from pathlib import Path

import torch
import transformers
from fetch import REVIEWS, download, read_ratings, read_reviews

import zoopt


def judged(sdist, count):
    """Sentences by id, and everybody's scores of them; groups of four are compared."""
    chosen = read_reviews(sdist).sample(count // 4 * 4, random_state=0).set_index("id")
    ratings = read_ratings(sdist).rename(columns={"id": "item"})
    ratings = ratings[ratings["item"].isin(chosen.index)]
    group = ratings["item"].map({item: place // 4 for place, item in enumerate(chosen.index)})
    items = {item: {"text": text} for item, text in chosen["text"].items()}
    return items, ratings.assign(group=group)


if __name__ == "__main__":
    cache = Path(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt").expanduser()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=cache / "smollm2-135m-instruct")
    parser.add_argument("--ratings", help="the vaderSentiment sdist, if you have it")
    parser.add_argument("--sentences", type=int, default=900)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--run-dir", default="runs/human_preference")
    chosen = parser.parse_args()
    sdist = chosen.ratings or download(REVIEWS, cache / "downloads")
    items, ratings = judged(sdist, chosen.sentences)
    quarter = ratings["group"] * 4 // (ratings["group"].max() + 1)
    first, held_out = ratings["rater"] < 8, ratings[(ratings["rater"] >= 8) & (quarter == 0)]
    train, dev = (zoopt.preferences(ratings[first & q], items) for q in (quarter > 1, quarter == 1))
    print(f"two of the held-out people agree on {zoopt.agreement(held_out):.1%} of their choices")
    tokenizer = transformers.AutoTokenizer.from_pretrained(chosen.model)
    torch.manual_seed(0)  # of the new head's weights
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        chosen.model, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    template = "Review: {text}\nSentiment:"
    scorer = zoopt.Regression([*items.values()], tokenizer=tokenizer, template=template, target="")
    zoopt.tune(
        model,
        task=zoopt.Preference(scorer, train, dev[:100], zoopt.preferences(held_out, items)),
        **{"objective": "win_rate", "surrogate_steps": chosen.steps, "steps": chosen.steps},
        # All below the head runs once a step and serves all 32 probes.
        **{"params": "score.weight", "estimator": "nspsa", "n": 16, "eps": 0.01, "lr": 0.03},
        **{"batch_size": 16, "eval_every": 20, "run_dir": chosen.run_dir},
    )
