"""Tune a language model on reward functions from a GRPO script for TRL, as they stand there.

They get prompts, completions and whatever else, and return a number for each completion: one looks
for direct speech, the other at the length. The norm weights of stories15M, a small language model,
are tuned on the weighted sum. `python examples/grpo_reward.py [--model FOLDER]`, two minutes.
"""

import argparse
import os
import re

import stories
import transformers

import zoopt


def speech_reward(completions, **kwargs):
    """1.0 for a completion in which somebody says a sentence, 0.0 for any other."""
    return [1.0 if re.search(r'"[A-Z][^"]*[.,!?]"', text) else 0.0 for text in completions]


def length_reward(prompts, completions, **kwargs):
    """0.0 for a completion of 80 characters, less for longer and shorter ones."""
    return [-abs(80 - len(completion)) / 80 for completion in completions]


SPEAKERS = ["cat", "dog", "bird", "frog", "tree", "fish"]
BEGINNINGS = [f"{{}} met a talking {speaker}." for speaker in SPEAKERS]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="", help="a folder; stories15M, fetched, if not given")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--run-dir", default="runs/grpo_reward")
    chosen = parser.parse_args()
    folder = chosen.model or stories.fetch(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt")
    task = zoopt.Generation(
        stories.prompts(BEGINNINGS, stories.NAMES),
        test=stories.prompts(BEGINNINGS, stories.HELD_OUT),
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
        **{"params": "*norm.weight", "eps": 0.05, "lr": 0.15, "batch_size": 12},
        **{"steps": chosen.steps, "run_dir": chosen.run_dir},
    )
