"""Does progress depend on the dimension d, or on the effective rank r? Quadratics of both.

f(x) = ½ Σ_{i ≤ r} x_i² over d variables has effective rank tr H / ‖H‖ = r. With Gaussian z, a step
of SPSA with lr η multiplies E[f] by 1 − 2η + (r + 2) η², whatever d is; at the best η = 1/(r + 2)
that is 1 − 1/(r + 2). This is the claim of the MeZO paper (arXiv 2305.17333, section 4).

`python -m benchmarks.functions.rank` prints the table and writes results/rank.md.
"""

from pathlib import Path

import pandas as pd
import torch

import zoopt
from benchmarks import pages

HERE = Path(__file__).parent

RANKS = (10, 100)
DIMENSIONS = (10**3, 10**4, 10**5, 10**6, 10**7)


def measured(rank, d, steps, seeds):
    """By how much ln f falls in a step times r + 2, in each of some runs."""
    rates = []
    for seed in range(seeds):
        x = torch.nn.Parameter(torch.zeros(d))
        x.data[:rank] = 1.0
        optimizer = zoopt.ZOOptimizer(
            [x], lr=1 / (rank + 2), estimator=zoopt.MeZO(eps=1e-3), seed=seed
        )
        value = lambda x=x: 0.5 * (x[:rank].double() ** 2).sum()  # noqa: E731
        first = value()
        with optimizer.chain():
            for _ in range(steps):
                optimizer.step(value)
            optimizer.settle()
        rates.append(float((first / value()).detach().log()) / steps * (rank + 2))
    return rates


def table(dimensions=DIMENSIONS, seeds=5):
    """A row for each d, a column for each r: median of the rate, and its range over runs."""
    rows = []
    for d in dimensions:
        row = {"d": f"{d:,}"}
        for rank in RANKS:
            rates = pd.Series(measured(rank, d, 2 * rank, seeds))
            row[f"r = {rank}"] = f"{rates.median():.2f} ({rates.min():.2f} to {rates.max():.2f})"
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    found = pages.markdown(table())
    print(found)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "rank.md").write_text(found, encoding="utf-8")
