"""Accuracy of attention and MoE on measured runs: parameters fitted on half of the sites predict the other half."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from hwsim.cost.gpu.registry import family
from hwsim.validation.fit import Rows, fit, rows_by_class, subset
from hwsim.validation.table import read_table
from tests.cost.gpus import A100, H100

GPUS = {"A100-SXM4-80GB": A100, "H100-SXM5-80GB": H100}
# A quarter of the H100 rows of one MoE site (top-1 of 16 experts) ran a tactic 4-5 times slower than their neighbours,
# which no shape explains; the half that holds them ranks lower than the whole (0.98).
RANK = {"moe": 0.95}
BARS = {"attention_prefill": 10.0, "attention_decode": 10.0, "moe": 15.0}


@pytest.mark.shared
@pytest.mark.long
@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("name", BARS)
def test_unseen_sites_meet_the_bar(shared, name, gpu):
    model = family(name)
    table = read_table(shared / "measured" / f"{name}.csv", family=model)
    columns = {k: v[table.columns["gpu"] == gpu] for k, v in table.columns.items()}
    rows = rows_by_class(model, columns, GPUS[gpu], columns["latency_us"] * 1e-6)
    halves = [_half(model, r, k) for k in (0, 1) for r in rows]
    train, test = halves[: len(rows)], halves[len(rows) :]
    fitted = fit(model, train)
    errors = [r.log_error(model, {**model.start(), **fitted[r.kernel_class]}) for r in test]
    both, measured = np.concatenate(errors), np.concatenate([r.latency_s for r in test])
    assert 100 * np.abs(np.expm1(both)).mean() <= BARS[name]
    assert spearmanr(np.exp(both) * measured, measured)[0] >= RANK.get(name, 0.97)


def _half(model, rows: Rows, which: int) -> Rows:
    """Every other site."""
    _, number = np.unique(model.site(rows.columns), return_inverse=True)
    return subset(rows, number % 2 == which)
