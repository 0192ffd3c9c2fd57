"""Memory without check bits sustains more of its peak than its calibration donors, never more than a long copy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwsim.schema.calibration import MOST_SUSTAINED, WITHOUT_ECC, load_calibration
from hwsim.schema.loader import load_hardware


def shares(name: str, ecc: str) -> list[float]:
    device = load_hardware(name).platform.device
    memories = tuple(replace(m, ecc=ecc) if m is device.main_memory else m for m in device.memories)
    calibration = load_calibration(device.with_(memories=memories))
    assert calibration is not None
    return [
        found["parameters"]["hbm_eff"]
        for family in calibration.families.values()
        for donor in family["donors"]
        for found in donor["classes"].values()
        if "hbm_eff" in found["parameters"]
    ]


def test_only_transferred_parameters_move() -> None:
    plain, without = shares("rtx4090", ""), shares("rtx4090", "none")
    assert len(plain) == len(without) > 20
    for before, after in zip(plain, without, strict=True):
        assert before <= after <= max(before, MOST_SUSTAINED)
        assert after == pytest.approx(max(before, min(MOST_SUSTAINED, WITHOUT_ECC * before)))
    assert shares("rtx4090", "inline") == plain


def test_a_measured_device_keeps_its_own() -> None:
    device = load_hardware("a40").platform.device
    own = load_calibration(device.with_(memories=tuple(replace(m, ecc="none") for m in device.memories)))
    plain = load_calibration(device)
    assert own is not None and plain is not None
    assert own.families["gemm"]["donors"][0] == plain.families["gemm"]["donors"][0]


def test_the_server_edition_inherits_it() -> None:
    assert load_hardware("rtx-pro-6000-server").platform.device.main_memory.ecc == "none"
