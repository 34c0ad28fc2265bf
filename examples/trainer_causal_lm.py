"""Teach a language model the tone of film reviews: a script for the Hugging Face Trainer.

All parameters of stories15M, which has read nothing but children's stories, are tuned with forward
passes alone and in the memory of inference.

`pip install "zoopt-torch[trainer,data]"`, then `fetch.py` (reviews), `stories.py` (the model) and
this file, all in `examples/`: under 10 minutes.
"""

import argparse
import os
from pathlib import Path

from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    TrainingArguments,
)

import zoopt

CACHE = Path(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt").expanduser()


def main(model, reviews=CACHE / "reviews", steps=200, out="runs/trainer_causal_lm"):
    tokenizer = AutoTokenizer.from_pretrained(model)
    files = {split: str(reviews / f"{split}.csv") for split in ("train", "dev")}
    data = load_dataset("csv", data_files=files, cache_dir=Path(out) / "data")
    data = data.map(
        lambda row: tokenizer(row["text"], truncation=True, max_length=64),
        remove_columns=["id", "text", "label", "rating"],
    )
    trainer = zoopt.ZOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=TrainingArguments(
            output_dir=out, max_steps=steps, per_device_train_batch_size=16, learning_rate=1e-5
        ),
        train_dataset=data["train"],
        eval_dataset=data["dev"],
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    print(f"eval_loss: {before:.3f} before, {trainer.evaluate()['eval_loss']:.3f} after")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=CACHE / "stories15m", help="a model's folder")
    parser.add_argument("--steps", type=int, default=200)
    main(**vars(parser.parse_args()))
