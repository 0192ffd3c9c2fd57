"""Shipped hardware files load, peaks follow from units and clock, names are unique, and numbers are cited."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from hwsim import content
from hwsim.errors import InputError, UnknownNameError
from hwsim.ir.platform import Device
from hwsim.schema.accelerator import AcceleratorFile, citation, quantity_paths
from hwsim.schema.base import validate
from hwsim.schema.loader import load_accelerator, load_hardware, price_of, resolved_accelerator
from hwsim.schema.reader import Document, read
from hwsim.schema.systems import ClusterFile, MemoryFile, NodeFile, PricesFile

ACCELERATORS = sorted(content.catalog("accelerator"))
# Owned by the cost model of its own chip, which may leave out what the shared checks want.
DEMO = {name for name in ACCELERATORS if "status: demo" in content.catalog("accelerator")[name].read_text("utf-8")}
SHIPPED = [name for name in ACCELERATORS if name not in DEMO]

# Operations a clock and SM on the matrix path, dense, one FMA = two: 16-bit floats of each chip (vendor whitepapers).
SIXTEEN_BIT_WIDTH = {
    "volta": 1024, "turing": 1024, "ampere": 2048, "hopper": 4096, "blackwell": 8192, "blackwell-consumer": 1024,
    "cdna1": 1024, "cdna2": 1024, "cdna3": 2048, "cdna4": 4096,
}  # fmt: skip
# Graphics-die chips: half, a quarter or (GeForce with fp32 accumulate) an eighth of the data-centre width.
WIDTH_OF = {
    "a40": 1024, "a6000": 1024, "a10": 1024, "a10g": 512, "rtx3090": 512, "l4": 1024, "l40": 512, "l40s": 1024,
    "rtx6000-ada": 1024, "rtx4090": 512, "rtx5090": 512,
}  # fmt: skip
# Some data sheets quote the matrix peaks at a clock below the maximum boost of the vector peaks: MHz.
MATRIX_CLOCK_MHZ = {
    "h100-sxm": 1830, "h200-sxm": 1830, "h800-sxm": 1830, "gh200": 1830, "h100-pcie": 1620, "h100-nvl": 1545,
    "l40s": 2490, "b200-sxm": 1856, "b300-sxm": 1856,
}  # fmt: skip
FP32_WIDTH = {
    "pascal": 128, "volta": 128, "turing": 128, "ampere": 128, "hopper": 256, "ada": 256, "blackwell": 256,
    "blackwell-consumer": 256,
    "cdna1": 128, "cdna2": 128, "cdna3": 256, "cdna4": 256,
}  # fmt: skip
FP32_WIDTH_OF = dict.fromkeys(("a40", "a6000", "a10", "a10g", "rtx3090", "p4"), 256)
CAPPED = {"h20"}  # an export part whose matrix peak is limited far below its silicon

REQUIRED = [
    "A100-PCIE-40GB", "A100-PCIE-80GB", "A100-SXM4-80GB", "A100-80GB-vidur", "A40-48GB", "H100-80GB-vidur",
    "H100-SXM5-80GB", "H200-SXM-141GB", "L40S", "B200-SXM-180GB", "GB200", "B300-SXM", "GB300", "RTX4090",
    "RTX-PRO-6000", "L4", "T4", "P4", "P100-PCIE-16GB", "V100-PCIE-32GB", "MI100", "MI210", "MI250",
    "A100-SXM4-40GB", "a100", "a100.yaml", "h100", "h200", "b200", "v100", "4090", "3090", "5090", "mi300x",
    "mi325x", "mi250x", "h20", "h800", "gh200", "a800", "a30", "a10g", "a6000", "l40", "t4", "tpu_v4", "tpu_v5e",
    "tpu_v5p", "tpu_v6e", "gaudi3", "ascend_910", "ascend_910b", "atlas_300i_duo", "xeon", "epyc", "xeon_8380",
    "xeon_6230", "epyc_7a53", "neoverse-n1", "neoverse-v2", "core_i9_13900k", "apple_m1_max", "apple_m2_ultra",
    "dgx_spark", "strix_halo", "u280", "vhk158", "stratix10_d5005", "wse-2", "wse2", "hexagon_sd8gen3", "edge_tpu",
    "mtk_apu790", "kirin_ascend", "a100_80gb_sxm", "a100_80gb_pcie", "h100_sxm", "h100_pcie", "a100-pcie",
]  # fmt: skip
REQUIRED_SYSTEMS = [
    "dgx_a100", "dgx_h100", "hgx-h100", "dgx-h200", "dgx-b200", "gb200-nvl72", "mi300x-8", "l40s-8",
    "a100-pcie-pair", "frontier-node", "dgx-h100-x4", "dgx-a100-x16", "frontier", "ascend-910b-x8",
]  # fmt: skip


def device_of(name: str) -> Device:
    return load_accelerator(name)[0]


def gpus() -> list[str]:
    return [name for name in SHIPPED if device_of(name).kind == "gpu"]


def test_catalog_is_wide_enough() -> None:
    assert len(ACCELERATORS) >= 60
    assert {device_of(n).kind for n in SHIPPED} >= {"gpu", "tpu", "npu", "cpu", "soc", "fpga", "wafer"}


@pytest.mark.parametrize("name", ACCELERATORS)
def test_accelerator_loads_with_positive_finite_numbers(name: str) -> None:
    device = device_of(name)
    assert device.name == name
    numbers = [c.peak_flop_per_s for c in device.compute]
    numbers += [value for m in device.memories for value in (m.size_bytes, m.read_bytes_per_s, m.write_bytes_per_s)]
    numbers += [k.bandwidth_bytes_per_s for k in device.links] + [device.power.tdp_w]
    assert all(math.isfinite(float(v)) and v > 0 for v in numbers)
    assert device.main_memory.scope == "device"


@pytest.mark.parametrize("name", SHIPPED)
def test_bandwidth_falls_from_near_to_far(name: str) -> None:
    device = device_of(name)
    totals = [m.read_bytes_per_s * (device.units if m.scope == "unit" else 1) for m in device.memories]
    assert all(near >= far for near, far in zip(totals, totals[1:], strict=False)), totals
    shared = [m.size_bytes for m in device.memories if m.scope == "device"]
    assert all(near < far for near, far in zip(shared, shared[1:], strict=False)), shared


@pytest.mark.parametrize("name", SHIPPED)
def test_power_and_process_are_plausible(name: str) -> None:
    device = device_of(name)
    assert 0 < device.power.idle_w < 0.5 * device.power.tdp_w
    assert 2e-9 < device.process_m < 50e-9  # the energy model scales with the node
    # 1,000 to 0.05 J a TFLOP: a wrong prefix shows here
    best = max(c.peak_flop_per_s for c in device.compute)
    assert 1e9 < best / device.power.tdp_w < 2e13


@pytest.mark.parametrize("name", [n for n in gpus() if n not in CAPPED])
def test_gpu_peaks_follow_from_units_and_clock(name: str) -> None:
    device = device_of(name)
    fp32 = device.peak("fp32", "vector")
    assert fp32 is not None and device.clock_hz > 0
    width = FP32_WIDTH_OF.get(name, FP32_WIDTH[device.generation])
    assert fp32 == pytest.approx(device.units * device.clock_hz * width, rel=0.01)
    sixteen = device.peak("fp16")
    if sixteen is None:
        assert device.generation == "pascal"
        return
    clock = MATRIX_CLOCK_MHZ.get(name, device.clock_hz / 1e6) * 1e6
    matrix = WIDTH_OF.get(name) or SIXTEEN_BIT_WIDTH[device.generation]
    assert sixteen == pytest.approx(device.units * clock * matrix, rel=0.01)
    assert clock <= device.clock_hz * 1.0001


@pytest.mark.parametrize("name", gpus())
def test_gpu_matrix_peaks_are_dense_and_double_as_the_width_halves(name: str) -> None:
    """A sparse figure in one column shows as a factor of two; fp4 of Blackwell Ultra is three times fp8."""
    device = device_of(name)
    sixteen, geforce = device.peak("fp16"), name in {"rtx3090", "rtx4090", "rtx5090"}
    if sixteen is None:
        return
    for dtype, ratio in (("fp8", 2.0), ("tf32", 0.5)):
        peak = device.peak(dtype)
        assert peak is None or peak == pytest.approx(ratio * sixteen, rel=0.03), dtype
    int8, fp4, fp8 = device.peak("int8"), device.peak("fp4"), device.peak("fp8")
    amd_old = device.generation in {"cdna1", "cdna2"}  # int8 at the fp16 rate
    if int8 is not None:
        assert int8 == pytest.approx((4.0 if geforce else 1.0 if amd_old else 2.0) * sixteen, rel=0.03)
    if fp4 is not None and fp8 is not None:
        ultra, by_half = name in {"b300-sxm", "gb300"}, 4.0 if geforce else 2.0
        assert fp4 / fp8 == pytest.approx(3.0 if ultra else by_half, rel=0.05)
    bf16 = device.peak("bf16")
    if bf16 is not None:
        assert bf16 == pytest.approx(sixteen * (0.5 if device.generation == "cdna1" else 1.0), rel=0.01)


def test_known_data_sheet_figures() -> None:
    a100, h100 = device_of("a100"), device_of("h100")
    assert (a100.peak("bf16"), a100.main_memory.read_bytes_per_s) == (312e12, 2039e9)
    assert a100.main_memory.size_bytes == 80 * 2**30
    assert (h100.peak("fp8"), h100.main_memory.read_bytes_per_s) == (1978e12, 3350e9)
    assert h100.link("nvlink").in_network_reduction and not a100.link("nvlink").in_network_reduction
    assert device_of("a100-pcie").main_memory.read_bytes_per_s == 1935e9
    assert device_of("u280").main_memory.read_bytes_per_s == 460e9
    assert device_of("mi300x").last_level_cache.name == "infinity_cache"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", gpus())
def test_gpu_files_have_the_levels_and_links_that_kernel_models_read(name: str) -> None:
    device = device_of(name)
    levels = [m.name for m in device.memories]
    assert levels[0] == "register_file" and "l2" in levels and levels[-1] in {"hbm", "gddr", "lpddr"}
    links = [k.name for k in device.links]
    assert "pcie" not in links[:-1]  # the slowest port comes last
    assert all(k.latency_s > 0 or k.name == "connectx7" for k in device.links)


@pytest.mark.parametrize("alias", REQUIRED)
def test_required_names_resolve(alias: str) -> None:
    assert device_of(alias).compute


@pytest.mark.parametrize("alias", REQUIRED_SYSTEMS)
def test_required_systems_resolve(alias: str) -> None:
    assert load_hardware(alias).platform.count > 1


def test_names_and_aliases_are_unique_over_all_hardware() -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    for kind in content.HARDWARE_KINDS:
        for stem, path in content.catalog(kind).items():
            for alias in (stem, *(read(path).data.get("aliases") or [])):
                owners[content.normalize(str(alias))].add(str(path))
    twice = {alias: files for alias, files in owners.items() if len(files) > 1}
    assert not twice


def test_aliases_lie_where_the_head_scan_finds_them() -> None:
    for kind in content.HARDWARE_KINDS:
        table = content.aliases(kind)
        for path in content.catalog(kind).values():
            for alias in read(path).data.get("aliases") or []:
                assert table[content.normalize(str(alias))][1] == path, alias


def test_every_number_of_a_shipped_accelerator_has_its_own_source() -> None:
    for name in SHIPPED:
        data = resolved_accelerator(name)
        file = validate(AcceleratorFile, Document(data, content.catalog("accelerator")[name]))
        assert "default" not in file.sources, name
        for path in quantity_paths(file):
            source = citation(path, file.sources)
            assert len(source) > 8 and "draft" not in source, (name, path, source)


def test_sources_name_only_what_exists() -> None:
    """A source for a key that the file does not have is left over from an edit."""
    for name in SHIPPED:
        data = resolved_accelerator(name)
        file = validate(AcceleratorFile, Document(data, content.catalog("accelerator")[name]))
        paths = quantity_paths(file)
        stale = [key for key in file.sources if not any(p == key or p.startswith(key + ".") for p in paths)]
        assert not stale, (name, stale)


def _numbers(data: Any, path: str = "") -> list[str]:
    if isinstance(data, dict):
        return [p for k, v in data.items() if k != "sources" for p in _numbers(v, f"{path}.{k}" if path else k)]
    is_number = isinstance(data, int | float) and not isinstance(data, bool)
    return [path] if is_number else []


def test_numbers_of_nodes_clusters_and_memories_are_cited() -> None:
    for kind, model in (("node", NodeFile), ("cluster", ClusterFile), ("memory", MemoryFile)):
        for name, path in content.catalog(kind).items():
            file: Any = validate(model, read(path))
            given = file.model_dump(exclude_unset=True)
            missing = [p for p in _numbers(given) if not citation(p, file.sources)]
            assert not missing, (name, missing)


@pytest.mark.parametrize("kind", ["node", "cluster"])
def test_systems_load(kind: str) -> None:
    for name in content.catalog(kind):
        platform = load_hardware(name).platform
        assert platform.name == name and platform.count >= 1 and platform.count % platform.node_size == 0
        assert (platform.scale_out is not None) == (kind == "cluster")
        assert platform.count == 1 or platform.scale_up is not None


def test_a_memory_is_no_computer() -> None:
    for name in content.catalog("memory"):
        with pytest.raises(InputError, match="not something that computes"):
            load_hardware(name)


def test_prices_name_catalog_devices_and_cover_the_catalog() -> None:
    for file in (validate(PricesFile, read(path)) for path in content.catalog("price").values()):
        assert all(content.normalize(e.device) in ACCELERATORS for e in file.entries), file.name
        assert all(e.rate is not None or e.capex is not None for e in file.entries)
        assert {"amortization", "electricity", "pue"} <= set(file.sources)
        devices = [e.device for e in file.entries]
        assert len(devices) == len(set(devices)), file.name
    assert [name for name in SHIPPED if price_of(name) is None] == []


def test_published_prices() -> None:
    melange = {d: price_of(d, "2024-melange") for d in ("a100-sxm4-80gb", "h100-sxm", "l4", "a10g")}
    assert [round(p.rate_usd_per_s * 3600, 3) for p in melange.values() if p] == [3.67, 7.516, 0.70, 1.01]
    lamina = [price_of(d, "2024-lamina") for d in ("h100-sxm", "h20", "tpu-v6e")]
    assert [round(p.rate_usd_per_s * 3600, 2) for p in lamina if p] == [11.06, 4.63, 2.70]
    bought = price_of("u280", "2024-flightllm")
    assert bought is not None and bought.capex_usd == 8000 and bought.energy_usd_per_j > 0


def test_extends_changes_only_what_it_says(tmp_path: Path) -> None:
    what_if = tmp_path / "a100-fast.yaml"
    what_if.write_text(
        "schema: hwsim/accelerator@1\nname: a100-fast\ntitle: what if\nkind: gpu\nextends: a100-sxm4-80gb\n"
        "memories:\n  - {name: hbm, read: 4078 GB/s}\nsources: {memories.hbm.read: what-if}\n"
    )
    base, changed = device_of("a100"), load_accelerator(str(what_if))[0]
    assert changed.main_memory.read_bytes_per_s == 2 * base.main_memory.read_bytes_per_s
    assert changed.main_memory.size_bytes == base.main_memory.size_bytes
    assert changed.memories[:-1] == base.memories[:-1] and changed.links == base.links
    assert [c.peak_flop_per_s for c in changed.compute] == [c.peak_flop_per_s for c in base.compute]
    assert changed.sources["memories.hbm.read"] == "what-if"
    assert changed.aliases == ()


@pytest.mark.parametrize("parent", ["a100-sxm9", "../a100", "me"])
def test_extends_refuses_unknown_paths_and_loops(tmp_path: Path, parent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hardware" / "accelerators").mkdir(parents=True)
    me = tmp_path / "hardware" / "accelerators" / "me.yaml"
    me.write_text(f"schema: hwsim/accelerator@1\nname: me\ntitle: me\nkind: gpu\nextends: {parent}\nsources: {{}}\n")
    monkeypatch.setenv("HWSIM_PATH", str(tmp_path))
    with pytest.raises(InputError) as caught:
        load_accelerator("me")
    assert "me.yaml:5 extends" in caught.value.where
    assert caught.value.fix and (parent != "a100-sxm9" or isinstance(caught.value, UnknownNameError))


def test_unknown_device_proposes_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="a100"):
        load_accelerator("a100-smx4-80gb")
