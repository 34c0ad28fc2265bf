"""Put the demo's table and curve into the README: `python examples/publish.py [RUN]`."""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main():
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/reviews")
    kept = ROOT / "docs" / "demo"
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("curve.png", "report.md", "config.yaml", "metrics.jsonl"):
        shutil.copy(run / name, kept / name)
    table = (kept / "report.md").read_text(encoding="utf-8")
    readme = ROOT / "README.md"
    marked = re.compile(r"(<!-- demo -->\n).*?(<!-- /demo -->)", re.DOTALL)
    text = marked.sub(lambda m: m[1] + table + m[2], readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
