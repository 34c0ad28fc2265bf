"""Tell good film reviews from bad ones: a script for the Hugging Face Trainer, without gradients.

MiniLM's new head is tuned. What is below it gives all probes the same, and is computed once a step.

`pip install "zoopt-torch[trainer,data]"`, then `fetch.py` (reviews), `minilm.py` (the model) and
this file, all in `examples/`: under 10 minutes.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments

import zoopt

CACHE = Path(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt").expanduser()


def compute_metrics(eval_pred):
    scores, labels = eval_pred
    return {"accuracy": np.mean(np.argmax(scores, axis=1) == labels)}


def main(model, reviews=CACHE / "reviews", steps=400, out="runs/trainer_classification"):
    tokenizer = AutoTokenizer.from_pretrained(model)

    def prepare(row):
        return {**tokenizer(row["text"]), "labels": int(row["label"] == "positive")}

    files = {split: str(reviews / f"{split}.csv") for split in ("train", "dev")}
    data = load_dataset("csv", data_files=files, cache_dir=Path(out) / "data")
    data = data.map(prepare).remove_columns(["id", "text", "label", "rating"])
    trainer = zoopt.ZOTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=2),
        args=TrainingArguments(
            output_dir=out, max_steps=steps, per_device_train_batch_size=32, learning_rate=0.03
        ),
        train_dataset=data["train"],
        eval_dataset=data["dev"],
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
        zo=zoopt.MeZO(eps=1e-2, n=16, direction="rademacher"),
        update="adam",
        params="classifier.*",
    )
    before = trainer.evaluate()
    trainer.train()
    for name, value in trainer.evaluate().items():
        if name in ("eval_loss", "eval_accuracy"):
            print(f"{name}: {before[name]:.3f} before, {value:.3f} after")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=CACHE / "all-minilm-l6-v2", help="a model's folder")
    parser.add_argument("--steps", type=int, default=400)
    main(**vars(parser.parse_args()))
