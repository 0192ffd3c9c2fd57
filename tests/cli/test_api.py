"""The public names, and that the Python functions and the command line share their defaults."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import hwsim
from hwsim.api import SIMULATE_DEFAULTS
from hwsim.errors import HwsimError


def test_every_public_name_is_there() -> None:
    for name in hwsim.__all__:
        assert getattr(hwsim, name) is not None
    with pytest.raises(AttributeError):
        _ = hwsim.nothing


def test_simulate_has_the_defaults_of_the_command_line() -> None:
    from hwsim.cli.simulate import command

    options = {
        n: p.default
        for n, p in inspect.signature(command).parameters.items()
        if p.default is not inspect.Parameter.empty
    }
    for name in ("format_", "out", "force", "quiet", "hw"):
        options.pop(name)
    elsewhere = ("application", "what_if", "capacity_tolerance", "capacity_start")
    files_and_python = {name: SIMULATE_DEFAULTS[name] for name in elsewhere}
    assert {**options, **files_and_python} == dict(SIMULATE_DEFAULTS)


def test_simulate_from_python() -> None:
    result = hwsim.simulate("llama-2-7b", "a100", rate=2.0, requests=50)
    assert result.to_dict()["schema"] == "hwsim/serving@1" and "time to first token" in str(result)
    with pytest.raises(HwsimError, match="polcy"):
        hwsim.simulate("llama-2-7b", "a100", polcy="vllm")


def test_predict_from_python(tmp_path: Path) -> None:
    file = tmp_path / "gemm.csv"
    file.write_text(
        "row_id,gpu,backend,version,dtype_act,dtype_weight,batch,m,n,k\n"
        "a,A100-SXM4-80GB,trtllm,1,bf16,bf16,1,16,4096,4096\n"
        "b,A100-SXM4-80GB,trtllm,1,bf16,bf16,1,-3,4096,4096\n"
    )
    found = hwsim.predict(file)
    assert len(found.pred_us) == 1 and found.low_us[0] < found.pred_us[0] < found.high_us[0]
    assert [p.line for p in found.table.problems] == [3]
