"""Every verb that takes -o refuses a suffix that stands for no format, before anything is computed or written."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from hwsim.cli import main
from hwsim.cli.main import VERBS, run

# verb -> arguments that are right but for the output file; sub-verbs of `validate` are listed one by one
CALLS: dict[str, list[str]] = {
    "evaluate": ["evaluate", "gpt2-xl", "--hw", "t4"],
    "compare": ["compare", "gpt2-xl", "--hw", "t4", "--hw", "a100"],
    "roofline": ["roofline", "gpt2-xl", "--hw", "t4"],
    "timeline": ["timeline", "gpt2-xl", "--hw", "t4"],
    "map": ["map", "gemm:4x4x4", "--hw", "g3-256"],
    "simulate": ["simulate", "gpt2-xl", "--hw", "t4"],
    "predict": ["predict", "absent.csv"],
    "reproduce": ["reproduce"],
    "pair": ["pair", "gpt2-xl", "--hw", "t4", "--network", "10 GB/s"],
    "speculate": ["speculate", "gpt2-xl", "--hw", "t4", "--draft", "gpt2"],
    "synthesize": ["synthesize", "dense:16x64,dense:64x5"],
    "import": ["import", "absent.json"],
    "validate mapping": ["validate", "mapping", "."],
    "validate serving": ["validate", "serving", "."],
    "validate kernels": ["validate", "kernels", "."],
}
FOLDERS = ("measure", "calibrate")  # -o is a folder there


@pytest.mark.parametrize("name", CALLS)
def test_unknown_suffix_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.xyz"
    assert run([*CALLS[name], "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert "'.xyz'" in error and "known: " in error
    assert list(tmp_path.iterdir()) == []


def test_every_verb_with_an_output_file_is_in_the_list() -> None:
    for verb, (module, _) in VERBS.items():
        if main._exists(module):
            parameters = _parameters(module)
            assert "out" not in parameters or verb in (*CALLS, *FOLDERS), verb


def _parameters(module: str) -> Any:
    import importlib

    loaded = importlib.import_module(f"hwsim.cli.{module}")
    return inspect.signature(loaded.command).parameters if hasattr(loaded, "command") else {}
