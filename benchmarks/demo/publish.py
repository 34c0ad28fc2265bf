"""Keeps a run's report in docs/ and puts its table into the README.

`python -m benchmarks.demo.publish [RUN [NAME]]`: runs/reviews is the demo, and
`runs/reviews_accuracy accuracy` the one on accuracy.
"""

import shutil
import sys
from pathlib import Path

from benchmarks import pages

ROOT = Path(__file__).parents[2]


def main():
    run, block = [*sys.argv[1:], *["runs/reviews", "demo"][len(sys.argv) - 1 :]]
    kept = ROOT / "docs" / block
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("curve.png", "report.md", "config.yaml", "metrics.jsonl"):
        shutil.copy(Path(run) / name, kept / name)
    pages.replace(ROOT / "README.md", block, (kept / "report.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
