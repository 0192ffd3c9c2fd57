"""Numbers and names of a device file that no machine can have are refused with their place and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim import content
from hwsim.errors import InputError
from hwsim.frontends.catalog import load_model
from hwsim.schema.loader import load_hardware

NPU = """schema: hwsim/accelerator@1
name: t
title: An NPU
kind: npu
compute:
  - {unit: tensor, dtype: int8, peak: 8 TOP/s}
memories:
  - {name: lpddr, size: 16 GB, read: 68 GB/s}
power: {tdp: 15 W, idle: 1 W}
sources: {default: "my design"}
"""


@pytest.mark.parametrize(
    ("good", "bad", "says", "line"),
    [
        ("68 GB/s", "1e-300 GB/s", "at least 1", 8),
        ("68 GB/s", "1e290 GB/s", "at most 1e+24", 8),
        ("16 GB", "1e280 GB", "at most 1e+24", 8),
        ("dtype: int8", "dtype: int9", "did you mean 'int8'", 6),
        ("tdp: 15 W", "tdp: 0 W", "tdp must be > 0", 9),
        ("idle: 1 W", "idle: 100 W", "not below idle", 9),
        ("title: An NPU", 'title: "\\e[31mred"', "control characters", 3),
    ],
)
def test_what_no_machine_has_is_refused(tmp_path: Path, good: str, bad: str, says: str, line: int) -> None:
    assert good in NPU
    file = tmp_path / "t.yaml"
    file.write_text(NPU)
    load_hardware(str(file))
    file.write_text(NPU.replace(good, bad))
    with pytest.raises(InputError) as caught:
        load_hardware(str(file))
    assert says in str(caught.value)
    assert f"t.yaml:{line}" in str(caught.value)


def test_a_file_of_another_kind_is_one_mistake(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(NPU)
    with pytest.raises(InputError) as caught:
        load_model(str(file))
    assert str(caught.value).count("\n") == 3
    assert "t.yaml:1 schema" in str(caught.value)
    assert "hwsim/model@1" in str(caught.value)


def test_a_rule_over_several_keys_names_one_line_and_the_values(tmp_path: Path) -> None:
    text = (
        content.resolve("llama-2-7b", "model")
        .path.read_text()
        .replace("kv_heads: 32", "kv_heads: 5")
        .replace("name: llama-2-7b", "name: t")
    )
    file = tmp_path / "t.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_model(str(file))
    line = 1 + next(i for i, row in enumerate(text.split("\n")) if row.startswith("kv_heads"))
    assert f"t.yaml:{line} kv_heads" in str(caught.value)
    assert "32 heads, 5 kv_heads" in str(caught.value)
