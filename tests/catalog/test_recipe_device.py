"""The FPGA of docs/recipes/device.md can be evaluated and mapped; without its section it says what is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hwsim
from hwsim import content
from hwsim.errors import HwsimError

RECIPE = Path(__file__).parents[2] / "docs" / "recipes" / "device.md"
BOARD = """schema: hwsim/accelerator@1
name: board
title: A board
cores: {count: 6840, clock: 250 MHz}
memories:
  - {name: onchip, size: 40 MB, read: 5 TB/s}
  - {name: ddr, size: 64 GB, read: 77 GB/s}
power: {tdp: 225 W, idle: 30 W}
sources: {default: mine}
"""


def test_the_fpga_of_the_recipe(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", RECIPE.read_text(), re.DOTALL)
    (section,) = [block for block in blocks if "kind: fpga" in block]
    file = tmp_path / "board.yaml"
    file.write_text(BOARD + section)
    result = hwsim.evaluate("llama-2-7b", str(file))
    assert result.tpot_s > 0
    assert result.document["metrics"]["average_power_w"]["value"] > 30
    file.write_text(BOARD + section.partition("fpga:                ")[0])
    with pytest.raises(HwsimError, match="docs/recipes/device.md"):
        hwsim.evaluate("llama-2-7b", str(file))


@pytest.mark.parametrize("name", sorted(content.catalog("accelerator")))
def test_every_shipped_device_can_be_evaluated_as_it_is(name: str) -> None:
    assert hwsim.evaluate("llama-2-7b", name, check_fit=False).tpot_s > 0
