"""The families beyond GPUs on the command line: one table, and exit 3 with the constraint and the amount."""

from __future__ import annotations

import pytest

from tests.cli.test_cli import call

FIVE = [word for name in ("u280", "wse2", "sail-neoverse-n1", "a100", "h100") for word in ("--hw", name)]


def test_one_table_of_five_families(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "compare", "llama-2-7b", *FIVE)
    assert code == 0
    assert all(name in out for name in ("u280", "wse2", "sail-neoverse-n1", "a100-sxm4-80gb", "h100-sxm"))
    assert "infeasible" not in out


def test_a_comparison_in_which_nothing_runs_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "compare", "llama-2-70b", "--hw", "u280", "--hw", "wse2")
    assert code == 3
    assert "too much on each device" in out and "B more than a core" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--hw", "u280", "--set", "fpga.mm_macs=9000"), "4,476 DSP slices more"),
        (("--hw", "wse2", "--set", "mesh.decode_grid=60"), "B more than a core"),
        (("--hw", "wse2", "--weights", "int4"), "12 bit missing"),
        (("--hw", "d5005", "--set", "fpga.density=0.5"), "no N:M pattern"),
        (("--hw", "u280", "--batch", "64", "--prompt", "2048"), "GiB too much"),
    ],
)
def test_refusals_name_the_constraint_and_a_fix(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    code, _, err = call(capsys, "evaluate", "llama-2-7b", *arguments)
    assert code == 3
    assert words in err and "fix:" in err
