"""How much memory a step takes beside a forward pass alone: SmolLM2-135M, 16 movie sentences.

Bytes are those that torch's allocator handed out, from its own events: the weights, plus the peak
of what was allocated on top of them during one step, after a first step that compiles and makes
state. `python benchmarks/memory/run.py` measures, writes results/ and the README's table.
"""

import argparse
import json
import platform
import re
from pathlib import Path

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

import zoopt
from zoopt.integrations import transformers
from zoopt.tasks import TaskObjective

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
CACHE = Path("~/.cache/zoopt").expanduser()

ZEROTH_ORDER = {
    "MeZO in-place, Rademacher": {"direction": "rademacher"},
    "MeZO in-place, Gaussian": {"direction": "gaussian"},
    "MeZO overlay, Rademacher": {"direction": "rademacher", "engine": "overlay"},
    "SPSA copy, Rademacher": {"direction": "rademacher", "engine": "copy"},
    "MeZO with momentum": {"direction": "rademacher", "update": "momentum"},
    "MeZO with Adam": {"direction": "rademacher", "update": "adam"},
}


def peak_during(step):
    """Peak bytes on top of what was allocated before, and bytes kept after, for one call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    now = peak = 0
    events = recorded.profiler.kineto_results.events()
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def bytes_of(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure(step, model, state):
    """The whole of it: weights, state that the method keeps, and the peak of a step on top."""
    step()
    peak = peak_during(step)
    return bytes_of(model.parameters()) + bytes_of(state()) + peak


def load(folder):
    return transformers.load(str(folder), "verbalizer", "float32", 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="where examples/fetch.py put things"
    )
    chosen = parser.parse_args()
    train = pd.read_csv(chosen.cache / "reviews/train.csv").to_dict("records")[:16]

    def objective(tokenizer):
        task = zoopt.Verbalizer(
            train,
            tokenizer=tokenizer,
            template="Review: {text}\nSentiment:",
            verbalizer={"negative": " negative", "positive": " positive"},
        )
        return TaskObjective(task, zoopt.get_objective("cross_entropy"))

    folder = chosen.cache / "smollm2-135m-instruct"
    model, tokenizer = load(folder)
    asked = objective(tokenizer)
    rows = {"forward pass alone": measure(lambda: asked.value(model, train), model, list)}

    for name, options in ZEROTH_ORDER.items():
        model, _ = load(folder)
        optimizer = zoopt.ZOOptimizer(model, lr=1e-7, **options)

        def state(optimizer=optimizer):
            held = (v for state in optimizer.state.values() for v in state.values())
            return [value for value in held if isinstance(value, torch.Tensor)]

        def step(optimizer=optimizer, model=model):
            optimizer.step(lambda: asked.value(model, train))

        rows[name] = measure(step, model, state)

    model, _ = load(folder)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-7)

    def backward():
        inputs = asked.task.inputs.batch(train, torch.device("cpu"), "left")
        logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
        targets = torch.tensor(asked.task.references(train))
        torch.nn.functional.cross_entropy(logits[:, asked.task.word_ids], targets).backward()
        adamw.step()
        adamw.zero_grad()

    rows["backpropagation with AdamW"] = measure(
        backward,
        model,
        lambda: [v for s in adamw.state.values() for v in s.values() if v.ndim],
    )
    report(rows)


def report(rows):
    forward = rows["forward pass alone"]
    table = pd.DataFrame(
        {
            "what": list(rows),
            "MB": [f"{value / 1e6:,.0f}" for value in rows.values()],
            "÷ forward alone": [f"{value / forward:.3f}" for value in rows.values()],
        }
    )
    lines = ["| " + " | ".join(row) + " |" for row in [table.columns, *table.to_numpy()]]
    lines.insert(1, "| --- | ---: | ---: |")
    text = "\n".join(lines)
    facts = {"torch": torch.__version__, "processor": platform.machine(), "bytes": rows}
    (HERE / "results" / "memory.json").write_text(json.dumps(facts, indent=2) + "\n")
    (HERE / "results" / "memory.md").write_text(text + "\n")
    print(text)
    marked = re.compile(r"(<!-- memory -->\n).*?(<!-- /memory -->)", re.DOTALL)
    readme = README.read_text(encoding="utf-8")
    README.write_text(marked.sub(lambda m: m[1] + text + "\n" + m[2], readme), encoding="utf-8")


if __name__ == "__main__":
    main()
