"""Tune a language model on a reward script: children's stories that sound more cheerful.

The reward is VADER's sentiment of the generated text, a program with no gradient. stories15M
(15 million parameters) is tuned as a whole; 32 probes generate together in each step.

`pip install "zoopt-torch[text]"`, then `python examples/cheerful_stories.py`: under 10 minutes.
"""

import argparse
import os

import stories
import transformers
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

import zoopt

BEGINNINGS = [
    "{} went to the park and saw a big dog.",
    "It was raining, and {} had nothing to do.",
    "{} found an old box under the bed.",
    "One day, {} lost a toy in the garden.",
    "{} and a friend walked into the dark forest.",
    "Mom told {} not to touch the hot soup.",
    "{} heard a loud noise outside.",
    "The little bird could not fly, so {} wanted to help.",
]
analyzer = SentimentIntensityAnalyzer()


def cheerful(completions, **columns):
    """VADER's compound sentiment of each text, from -1 (sad) to 1."""
    return [analyzer.polarity_scores(text)["compound"] for text in completions]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="", help="a folder; stories15M, fetched, if not given")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--run-dir", default="runs/cheerful_stories")
    chosen = parser.parse_args()
    folder = chosen.model or stories.fetch(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt")
    task = zoopt.Generation(
        stories.prompts(BEGINNINGS, stories.NAMES),
        test=stories.prompts(BEGINNINGS, stories.HELD_OUT),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        max_new_tokens=32,
        decoding={"do_sample": True},
        batch_size=48,
    )
    zoopt.tune(
        transformers.AutoModelForCausalLM.from_pretrained(folder),
        task=task,
        objective=zoopt.metric(cheerful),
        **{"estimator": "nspsa", "n": 16, "direction": "lowrank", "engine": "batched"},
        **{"eps": 0.015, "lr": 2.5e-4, "steps": chosen.steps, "batch_size": 6},
        run_dir=chosen.run_dir,
    )
