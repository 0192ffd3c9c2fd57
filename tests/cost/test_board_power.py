"""Boards whose file states no power at work, files without the section of their family, and how times are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim import content
from hwsim.api import Evaluation, compare, evaluate
from hwsim.cli.check import check
from hwsim.cost.registry import REQUIRED_SECTIONS, missing_section
from hwsim.errors import InputError
from hwsim.report import comparison
from hwsim.report.rows import basis, scenario_line
from hwsim.schema.loader import load_hardware

ACCELERATORS = content.root() / "hardware" / "accelerators"


def ask(device: str, **what_if: str) -> Evaluation:
    changed = {name.replace("__", "."): value for name, value in what_if.items()}
    return evaluate("llama-2-7b", device, what_if=changed or None)


def watts(result: Evaluation) -> float:
    return float(result.estimate.metrics["average_power_w"].value)


@pytest.mark.parametrize(("device", "section"), [("u280", "fpga"), ("vhk158", "fpga"), ("wse2", "mesh")])
def test_a_board_without_a_measured_power_draws_more_than_idle_and_says_that_it_is_estimated(
    device: str, section: str
) -> None:
    measured, estimated = ask(device), ask(device, **{f"{section}__power_run": "0 W"})
    power = estimated.estimate.platform.device.power
    assert float(power.idle_w) < watts(estimated) < float(power.tdp_w)
    said = [text for text in estimated.document["warnings"] if f"{section}.power_run" in text]
    assert len(said) == 1 and "estimated" in said[0]
    assert not any("power_run" in text for text in measured.document["warnings"])
    assert estimated.tpot_s == measured.tpot_s


def test_a_stated_power_is_what_is_drawn() -> None:
    assert watts(ask("u280", fpga__power_run="60 W")) == pytest.approx(60, rel=1e-6)


@pytest.mark.parametrize(("device", "section"), [("u280", "fpga"), ("wse2", "mesh"), ("a40-offload", "offload")])
def test_a_file_without_the_section_of_its_family_is_refused(device: str, section: str, tmp_path: Path) -> None:
    lines, kept, inside = (ACCELERATORS / f"{device}.yaml").read_text().splitlines(), [], False
    for line in lines:
        inside = line == f"{section}:" or (inside and line.startswith(" "))
        if not inside and not line.lstrip().startswith((f"{section}.", f"{section}:")):
            kept.append(line)
    file = tmp_path / f"{device}.yaml"
    file.write_text("\n".join(kept) + "\n")
    with pytest.raises(InputError, match=f"missing key '{section}'") as caught:
        check(file)
    assert section in str(caught.value.fix) and str(file) in str(caught.value.where)


def test_every_shipped_device_has_the_section_of_its_family() -> None:
    kinds = set()
    for path in sorted(ACCELERATORS.glob("*.yaml")):
        device = load_hardware(str(path)).platform.device
        kinds.add(device.kind)
        assert missing_section(device) is None, path.stem
    assert set(REQUIRED_SECTIONS) <= kinds


@pytest.mark.parametrize(
    ("device", "known"),
    [
        ("h100-sxm", "calibrated"),
        ("h20", "calibration transferred"),
        ("tpu-v5e", "not calibrated"),
        ("u280", "family model, not calibrated"),
    ],
)
def test_only_calibrated_machines_are_called_so(device: str, known: str) -> None:
    document = ask(device).document
    assert basis(document) == known
    assert scenario_line(document).endswith(f"; {known}")
    bare = evaluate("llama-2-7b", device, efficiency="datasheet").document
    assert basis(bare) == "datasheet"


def test_a_comparison_claims_a_calibration_only_where_there_is_one() -> None:
    mixed = compare("llama-2-7b", ["h100-sxm", "tpu-v5e"])
    assert comparison.headline(mixed).endswith("calibrated where a calibration exists")
