"""Tune a LoRA adapter on film reviews: a script for PEFT and the Hugging Face Trainer.

The adapter sits in the upper layers: what is below is computed once a step, for all probes.

`pip install "zoopt-torch[trainer,peft,data]"`, then `examples/fetch.py` and this file: 5 minutes.
"""

import argparse
import os
from pathlib import Path

from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    TrainingArguments,
)

import zoopt

CACHE = Path(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt").expanduser()


def main(model, reviews=CACHE / "reviews", steps=40, out="runs/trainer_lora"):
    tokenizer = AutoTokenizer.from_pretrained(model)

    def prepare(row):
        asked = tokenizer(f"Review: {row['text']}\nSentiment:")["input_ids"]
        answer = tokenizer(f" {row['label']}")["input_ids"]
        return {"input_ids": asked + answer, "labels": [-100] * len(asked) + answer}

    files = {split: str(reviews / f"{split}.csv") for split in ("train", "dev")}
    data = load_dataset("csv", data_files=files, cache_dir=Path(out) / "data")
    data = data.map(prepare).remove_columns(["id", "text", "label", "rating"])
    base = AutoModelForCausalLM.from_pretrained(model)
    upper = list(range(base.config.num_hidden_layers))[-10:]
    lora = LoraConfig(r=8, lora_alpha=16, layers_to_transform=upper, task_type="CAUSAL_LM")
    trainer = zoopt.ZOTrainer(
        model=get_peft_model(base, lora),
        args=TrainingArguments(
            output_dir=out, max_steps=steps, per_device_train_batch_size=8, learning_rate=3e-3
        ),
        train_dataset=data["train"],
        eval_dataset=data["dev"].select(range(len(data["dev"]) // 4)),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        zo=zoopt.MeZO(eps=1e-2, direction="rademacher"),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    trainer.save_model()  # the adapter alone
    print(f"eval_loss: {before:.3f} before, {trainer.evaluate()['eval_loss']:.3f} after")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=CACHE / "smollm2-135m-instruct", help="a model's folder")
    parser.add_argument("--steps", type=int, default=40)
    main(**vars(parser.parse_args()))
