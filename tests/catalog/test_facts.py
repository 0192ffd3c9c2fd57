"""Catalog numbers beside the collected reference facts; every difference above 1.5 % has its reason here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwsim.ir.platform import Device
from hwsim.schema.loader import load_accelerator

# fact -> how the catalog reads it
GETTERS: dict[str, Any] = {
    "peak_bf16": lambda d: d.peak("bf16"),
    "peak_fp16": lambda d: d.peak("fp16") or d.peak("fp16", "vector"),
    "peak_fp16_tensor": lambda d: d.peak("fp16"),
    "peak_fp8": lambda d: d.peak("fp8"),
    "peak_fp4": lambda d: d.peak("fp4"),
    "peak_int8": lambda d: d.peak("int8"),
    "peak_fp32": lambda d: d.peak("fp32", "vector"),
    "mem_size": lambda d: d.main_memory.size_bytes,
    "hbm_size": lambda d: d.main_memory.size_bytes,
    "mem_bw": lambda d: d.main_memory.read_bytes_per_s,
    "hbm_bw": lambda d: d.main_memory.read_bytes_per_s,
    "tdp": lambda d: d.power.tdp_w,
    "idle_power": lambda d: d.power.idle_w,
    "sms": lambda d: d.units,
    "cores": lambda d: d.units,
    "compute_units": lambda d: d.units,
    "clock": lambda d: d.clock_hz,
    "die_area": lambda d: d.die_area_mm2,
    "link": lambda d: d.links[0].bandwidth_bytes_per_s,
    "host_link": lambda d: d.links[-1].bandwidth_bytes_per_s,
}
GIB = "sold in GB, built of GiB stacks or chips"
GCD = "the fact is of the card, the catalog device one of its two dies"
SOLD_IN_GB = (
    "v100_pcie_32gb", "v100_sxm", "v100s_pcie", "a100_40gb_sxm", "a800_80gb_sxm", "a40", "a6000", "a10g", "l40",
    "h800_sxm", "h20", "rtx3090", "rtx4090", "rtx5090", "mi210", "mi300x", "mi325x", "t4",
)  # fmt: skip
GCD_FACTS = ("peak_fp16", "peak_fp32", "peak_int8", "compute_units", "mem_size", "mem_bw", "tdp")
KNOWN_DIFFERENCES = {
    ("l4", "sms"): "the source counts the full die; the L4 has 58 of 60",
    ("l4", "peak_fp32"): "as its SM count",
    ("gaudi3", "link"): "the source gives 300 GB/s; 21 ports of 200 Gbit/s give 525",
    ("ascend_910", "tdp"): "design limit in the catalog, measured value in the fact",
    ("xeon_6230", "mem_size"): "the fact is of two sockets",
    **{("mi250x", fact): GCD for fact in GCD_FACTS},
    **{(device, "mem_size"): GIB for device in SOLD_IN_GB},
}
BINARY = 2**30 / 1e9


def facts(folder: Path) -> dict[str, Any]:
    import ruamel.yaml

    text = (folder / "reference" / "hardware_facts.yaml").read_text("utf-8")
    devices: dict[str, Any] = ruamel.yaml.YAML(typ="safe", pure=True).load(text)["devices"]
    return devices


def catalog_value(device: Device, fact: str) -> float | None:
    value = GETTERS[fact](device)
    return None if value is None else float(value)


@pytest.mark.shared
def test_catalog_equals_the_facts(shared: Path) -> None:
    compared, wrong, used = 0, [], set()
    for name, entry in facts(shared).items():
        if entry["kind"] in {"link", "server", "cxl_memory", "storage"}:
            continue
        device = load_accelerator(name)[0]
        for fact, item in entry["params"].items():
            if fact not in GETTERS or not isinstance(item["value"], int | float):
                continue
            ours = catalog_value(device, fact)
            compared += 1
            if ours is not None and ours == pytest.approx(item["value"], rel=0.015):
                continue
            used.add((name, fact))
            if (name, fact) not in KNOWN_DIFFERENCES:
                wrong.append((name, fact, ours, item["value"], item["src"]))
            elif KNOWN_DIFFERENCES[name, fact] == GIB:
                assert ours == pytest.approx(item["value"] * BINARY, rel=0.001), (name, fact)
    assert compared > 250
    assert not wrong
    stale = set(KNOWN_DIFFERENCES) - used
    assert not stale, stale
