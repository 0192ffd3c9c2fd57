"""`hwsim/calibration@1`: fitted parameters of one device with sample counts, residual quantiles, data and software.

A device without a file of its own takes those of its kin: all files come along, ordered by `kinship`, and the cost
model picks the nearest donor that measured the kernel class it needs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from hwsim import content
from hwsim.ir.platform import Calibration, Device
from hwsim.schema.base import Name, Strict, validate
from hwsim.schema.reader import read

# GPUs in the order of their programming model: wgmma and TMA set Hopper and data-centre Blackwell apart from the
# mma.sync line; AMD's CDNA is its own line (NVIDIA CUDA C++ Programming Guide, compute capabilities 6.x-12.x).
LINEAGE: Final = {
    "pascal": ("nvidia", 0.0), "volta": ("nvidia", 1.0), "turing": ("nvidia", 1.5), "ampere": ("nvidia", 2.5),
    "ada": ("nvidia", 3.0), "hopper": ("nvidia", 5.0), "blackwell": ("nvidia", 6.0),
    "cdna1": ("amd", 0.0), "cdna2": ("amd", 1.0), "cdna3": ("amd", 2.0), "cdna4": ("amd", 3.0), "rdna3.5": ("amd", 4.0),
}  # fmt: skip
GRAPHICS_BLACKWELL: Final = 3.5  # Blackwell without HBM (compute capability 12) keeps mma.sync
OTHER_VENDOR: Final = 4.0  # generations that a change of vendor counts for
OTHER_MEMORY: Final = (
    3.0  # generations that GDDR against HBM counts for: another chip of the same name (A40 against A100)
)
BANDWIDTH_WEIGHT: Final = 0.25  # generations that a factor e of DRAM bandwidth counts for


class ResidualBin(Strict):
    """Quantiles of ln(measured / predicted) near `predicted_us`, by fits that never saw the rows' sites."""

    predicted_us: float = Field(gt=0)
    n: int = Field(ge=1)
    q10: float
    q50: float
    q90: float


class TransferEntry(Strict):
    """Quantiles of ln(measured / predicted) on other devices with this device's parameters (leave one GPU out)."""

    n: int = Field(ge=1)
    mape_percent: float = Field(ge=0)
    q10: float
    q90: float


class ClassEntry(Strict):
    """One kernel class: what was fitted, to how many rows and sites, and how well it predicts unseen sites and GPUs."""

    n: int = Field(ge=1)
    sites: int = Field(ge=1)
    mape_percent: float = Field(ge=0)
    median_percent: float = Field(ge=0)
    parameters: dict[str, float]
    residuals: list[ResidualBin]
    transfer: TransferEntry | None = None


class FamilyEntry(Strict):
    """Kernel classes of one family."""

    classes: dict[str, ClassEntry]


class DataEntry(Strict):
    """A file of measured runs: its name, content hash and the rows used."""

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int = Field(ge=1)
    gpus: list[str]
    backends: list[str]


class CalibrationFile(Strict):
    """Fitted parameters of the accelerator `device`."""

    schema_: Literal["hwsim/calibration@1"] = Field(alias="schema")
    name: Name
    device: Name
    generation: str = ""
    memory: str = ""
    dram_bytes_per_s: float = Field(gt=0)
    date: str
    software: dict[str, str]
    families: dict[str, FamilyEntry]
    data: list[DataEntry]
    notes: str = ""


@lru_cache(maxsize=4)
def _files(stamp: tuple[tuple[str, int], ...]) -> tuple[CalibrationFile, ...]:
    return tuple(validate(CalibrationFile, read(Path(path))) for path, _ in stamp)


def calibration_files() -> tuple[CalibrationFile, ...]:
    """All calibration files found. Raises InputError."""
    paths = content.catalog("calibration").values()
    return _files(tuple((str(p), p.stat().st_mtime_ns) for p in paths))


def kinship(device: Device, file: CalibrationFile) -> float:
    """Distance in generations between a device and the one a calibration was fitted on (0: the device itself)."""
    if content.normalize(file.device) == content.normalize(device.name):
        return 0.0
    vendor, rank = LINEAGE.get(device.generation, ("nvidia", 3.0))
    if device.generation == "blackwell" and not stacked(device.main_memory.name):
        rank = GRAPHICS_BLACKWELL
    other_vendor, other_rank = LINEAGE.get(file.generation, ("nvidia", 3.0))
    ratio = float(_scalar(device.main_memory.read_bytes_per_s)) / file.dram_bytes_per_s
    apart = abs(rank - other_rank) + (OTHER_VENDOR if vendor != other_vendor else 0.0)
    apart += OTHER_MEMORY if stacked(device.main_memory.name) != stacked(file.memory) else 0.0
    return 0.05 + apart + BANDWIDTH_WEIGHT * abs(math.log(ratio))


def stacked(memory: str) -> bool:
    """True for HBM."""
    return memory.lower().startswith("hbm")


def _scalar(value: Any) -> float:
    import numpy as np

    return float(np.ravel(value)[0])


def load_calibration(device: Device) -> Calibration | None:
    """The calibration of a GPU: its own, or its nearest kin's; None for other kinds of device or without any file."""
    if device.kind not in ("gpu", "cpu"):
        return None
    ranked = sorted(((kinship(device, f), f) for f in calibration_files()), key=lambda pair: (pair[0], pair[1].name))
    # processors are not kin of GPUs: they have a calibration of their own or none
    ranked = [pair for pair in ranked if pair[0] == 0 or (device.kind == "gpu" and pair[1].generation in LINEAGE)]
    if not ranked:
        return None
    return from_files(device, ranked)


# Graphics memory without check bits sustains more of its peak than what donors were fitted on (HBM, or GDDR6 with
# in-line ECC): an F16 8B model streams at 0.87 of the peak on RTX 4090 and RTX 6000 Ada, at 0.80 on L40S, the same
# chip with ECC; the donors' parameters say 0.82 for either (recalled: llama.cpp rates of the public table
# "GPU-Benchmarks-on-LLM-Inference").
WITHOUT_ECC: Final = 1.06
MOST_SUSTAINED: Final = 0.93  # what long copies reach


def _transferred(entry: dict[str, Any], device: Device, distance: float) -> dict[str, Any]:
    """A donor's classes as they serve `device`: its share of the DRAM rate moved where the memory has no ECC."""
    if distance == 0 or device.main_memory.ecc != "none":
        return entry
    classes = {}
    for name, found in entry["classes"].items():
        share = found["parameters"].get("hbm_eff")
        if share is not None:
            moved = max(share, min(MOST_SUSTAINED, share * WITHOUT_ECC))
            found = {**found, "parameters": {**found["parameters"], "hbm_eff": moved}}
        classes[name] = found
    return {**entry, "classes": classes}


def from_files(device: Device, ranked: list[tuple[float, CalibrationFile]]) -> Calibration:
    """A `Calibration` whose families list donors, nearest first: {"donors": [{device, distance, classes}]}."""
    families: dict[str, dict[str, Any]] = {}
    for distance, file in ranked:
        for name, entry in file.families.items():
            moved = _transferred(entry.model_dump(), device, distance)
            donor = {"device": file.device, "distance": distance, **moved}
            families.setdefault(name, {"donors": []})["donors"].append(donor)
    distance, nearest = ranked[0]
    kind: Literal["measured", "transferred"] = "measured" if distance == 0 else "transferred"
    provenance = {"date": nearest.date, "rows": sum(d.rows for d in nearest.data), "software": nearest.software}
    return Calibration(nearest.name, nearest.device, kind, families, provenance)
