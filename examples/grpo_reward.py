"""Tune a language model on reward functions from a GRPO script for TRL, as they stand there.

The two below take prompts, completions and whatever else, and return a number for each completion:
one asks by a regular expression that somebody speaks, the other for a length. stories15M, a
language model of 15 million parameters, is tuned on their weighted sum, without a gradient.

`python examples/grpo_reward.py` takes some minutes. Another model: `--model FOLDER`.
"""

import argparse
import os
import re

import stories
import transformers

import zoopt


def speech_reward(completions, **kwargs):
    """1.0 for a completion in which somebody says a sentence, 0.0 for any other."""
    pattern = r'"[A-Z][^"]*[.,!?]"'
    return [1.0 if re.search(pattern, content) else 0.0 for content in completions]


def length_reward(prompts, completions, **kwargs):
    """0.0 for a completion of 80 characters, less for longer and shorter ones."""
    return [-abs(80 - len(completion)) / 80 for completion in completions]


BEGINNINGS = [
    "{} went to the park and saw a big dog.",
    "{} found an old box under the bed. Mom said,",
    "One day, {} lost a toy in the garden.",
    "Mom looked at {} and said,",
    "{} met a talking cat.",
    "{} asked Dad a question.",
]
NAMES = ["Lily", "Tom", "Mia", "Ben", "Sara", "Max", "Anna", "Tim", "Lucy", "Sam", "Amy", "Jack"]
HELD_OUT = ["Zoe", "Leo", "Nina", "Paul", "Ella", "Fred", "Rose", "Bob", "Kim", "Dan", "Eva", "Joe"]


def prompts(names):
    return [{"prompt": beginning.format(name)} for name in names for beginning in BEGINNINGS]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="", help="a folder; stories15M, fetched, if not given")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--run-dir", default="runs/grpo_reward")
    chosen = parser.parse_args()
    folder = chosen.model or stories.fetch(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt")
    task = zoopt.Generation(
        prompts(NAMES),
        test=prompts(HELD_OUT),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        max_new_tokens=24,
        decoding={"do_sample": True},
        batch_size=48,
    )
    zoopt.tune(
        transformers.AutoModelForCausalLM.from_pretrained(folder),
        task=task,
        objective=zoopt.rewards([speech_reward, length_reward], weights=[1.0, 0.5]),
        **{"estimator": "nspsa", "n": 12, "direction": "lowrank", "engine": "batched"},
        **{"eps": 0.015, "lr": 2.5e-4, "steps": chosen.steps, "batch_size": 6},
        run_dir=chosen.run_dir,
    )
