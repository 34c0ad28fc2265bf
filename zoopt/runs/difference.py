"""Comparison of two runs: differences of settings, steps and scores."""

from __future__ import annotations

from zoopt.runs.inspecting import RunFiles


def difference(first: RunFiles, second: RunFiles) -> dict[str, tuple[str, str]]:
    """Returns the differences as {what: (in the first, in the second)}; empty for equal runs.

    Steps are compared exactly by their directions and losses: a run that was repeated on another
    machine usually differs in the last digits of some loss, which is reported.
    """
    found: dict[str, tuple[str, str]] = {}
    for name in sorted({*first.config, *second.config}):
        a, b = first.config.get(name), second.config.get(name)
        if a != b and name != "run_dir":
            found[name] = repr(a), repr(b)
    for name in sorted({*first.log.header, *second.log.header}):
        a, b = first.log.header.get(name), second.log.header.get(name)
        if a != b and name not in found:
            found[f"log: {name}"] = _short(a), _short(b)
    records = first.log.records, second.log.records
    for what in ("seeds", "losses", "lr", "eps"):
        for one, other in zip(*records, strict=False):
            a, b = getattr(one, what), getattr(other, what)
            if a != b:
                found[f"first step with other {what}: {one.step}"] = str(a), str(b)
                break
    if len(records[0]) != len(records[1]):
        found["steps"] = str(len(records[0])), str(len(records[1]))
    for step in sorted({*first.scores, *second.scores}):
        scores = first.scores.get(step), second.scores.get(step)
        if scores[0] != scores[1]:
            found[f"score at step {step}"] = _score(scores[0]), _score(scores[1])
    return found


def _score(score: float | None) -> str:
    return "none" if score is None else f"{score:.6g}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
