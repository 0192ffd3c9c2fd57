"""Options of a serving run that no run can have: refused at the door, with the option and the value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hwsim
from hwsim.errors import HwsimError


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"requests": 10**12}, "--requests"),
        ({"rate": 1e308}, "--rate"),
        ({"rate": 1e-300}, "--rate"),
        ({"burstiness": 0.0}, "--burstiness"),
        ({"burstiness": 1e300, "arrivals": "gamma"}, "--burstiness"),
        ({"seed": -1}, "--seed"),
        ({"max_batch": 10**9}, "--max-batch"),
        ({"replicas": 10**8}, "--replicas"),
        ({"tp": 0}, "--tp"),
        ({"mixed": -1}, "--mixed"),
        ({"overhead": "-1 ms"}, "--overhead"),
        ({"prompt": "mean=1e300"}, "--prompt"),
        ({"prompt": "1e12"}, "1 to 1e+09 tokens"),
        ({"output": "-1"}, "1 to 1e+09 tokens"),
        ({"prompt": "median=10,p90=1e9"}, "--prompt"),
        ({"output": {"mean": 10, "cv": 1e9}}, "--output"),
        ({"slo": "ttft=1s,ttft=2s"}, "twice"),
        ({"migration": "gap=1,gap=2"}, "twice"),
        ({"limits": "itl_s_p99=1s"}, "--capacity"),
        ({"autoscale": "most=2,least=5"}, "least <= most"),
        ({"closed_loop": "users=1e9"}, "users x turns"),
        ({"prefill_pool": 1}, "--replicas 2"),
    ],
)
def test_refused_with_the_option_that_is_wrong(option: dict[str, Any], says: str) -> None:
    with pytest.raises(HwsimError) as caught:
        hwsim.simulate("llama-2-7b", "a100", **{"requests": 5, "rate": 2.0, **option})
    assert says in str(caught.value)
    assert "where" in str(caught.value)


@pytest.mark.parametrize("name", ["none/x.csv", "."])
def test_a_table_that_cannot_be_written_is_bad_input(tmp_path: Path, name: str) -> None:
    with pytest.raises(HwsimError, match="cannot write"):
        hwsim.simulate("llama-2-7b", "a100", requests=5, rate=2.0, table=tmp_path / name)
    assert list(tmp_path.iterdir()) == []
