"""Energy: static power over the makespan plus pJ per operation and per byte moved, by level (LAW-4).

A device file may give its own `energy` fields; otherwise the technology defaults below apply. They are board-level
figures (controller, PHY and instruction delivery included) because that is what a person pays for.
"""

from __future__ import annotations

from typing import Final

from hwsim.ir.numbers import Num
from hwsim.ir.platform import Device

# Antepara et al., SC'25 (doi:10.1145/3712285.3759815): regressed from board power of a 7 nm class GPU,
# fp16 matrix 0.33 pJ/FLOP datapath + 0.37 pJ/FLOP control.
FP16_MATRIX_J_PER_FLOP: Final = 0.70e-12
_REFERENCE_NODE_M: Final = 7e-9  # process of both sources, metres
# Joules of logic grow as feature size to this power: 45 to 7 nm cost 2 to 4 times less (Horowitz, ISSCC 2014, against
# Jouppi et al., ISCA 2021, table 2), which is an exponent of 0.37 to 0.75.
_NODE_EXPONENT: Final = 0.6
# Energy of an operation relative to 16-bit multiply-accumulate: Jouppi et al., ISCA 2021, table 2 (7 nm):
# int8 0.10, bf16 0.59, fp32 1.69 pJ/MAC; the shared control part does not shrink with the width.
_DATAPATH_SHARE: Final = 0.33 / 0.70
_WIDTH_RATIO: Final = {
    "fp64": 4.0, "fp32": 2.86, "tf32": 1.5, "bf16": 1.0, "fp16": 1.0, "fp8": 0.5, "int8": 0.17, "fp4": 0.25,
    "int4": 0.1, "int2": 0.06,
}  # fmt: skip
# Scalar (vector-unit) work pays instruction delivery per lane: about 3x the matrix control share (assumption).
_VECTOR_CONTROL_FACTOR: Final = 3.0

# pJ/bit to J/B. HBM: SC'25 table 3, A100 13.11 and GH200 11.68 pJ/bit with controller; GDDR6 5.5-7.5 device-level
# (ISCA 2021) plus the same 8 pJ/bit of controller and on-chip path; DDR4 20.3 pJ/bit (ISCA 2021);
# LPDDR4 8 pJ/bit (hwcomponents_cacti 1.0.40); large SRAM 1.88 pJ/bit (AccelForge tpu_v4i CMEM, 7 nm).
_MEMORY_J_PER_BYTE: Final = {
    "hbm": 8 * 12.4e-12, "gddr": 8 * 14.5e-12, "ddr": 8 * 20.3e-12, "lpddr": 8 * 8e-12, "cxl": 8 * (20.3 + 9.5) * 1e-12,
    "sram": 8 * 1.88e-12, "nvme": 8 * 60e-12,
}  # fmt: skip
_CACHE_J_PER_BYTE: Final = 8 * 1.88e-12
# NVLink 4 1.3 pJ/bit (vendor), 112G long-reach SerDes 5.6 pJ/bit (VLSI 2022), PCIe 5 9.5 pJ/bit (PHY survey).
_LINK_J_PER_BYTE: Final = {"nvlink": 8 * 1.3e-12, "pcie": 8 * 9.5e-12}
_LINK_DEFAULT_J_PER_BYTE: Final = 8 * 5.6e-12


def j_per_flop(device: Device, dtype: str, unit: str = "tensor") -> Num:
    """Dynamic joules per operation of one dtype: the device's own figure, else logic scaled to its node.

    Assumption: control is paid in full whatever the width; the datapath shrinks with it.
    """
    for entry in device.compute:
        if entry.unit == unit and entry.dtype == dtype and np_positive(entry.energy_j_per_flop):
            return entry.energy_j_per_flop
    node = device.process_m if np_positive(device.process_m) else _REFERENCE_NODE_M
    scale = (node / _REFERENCE_NODE_M) ** _NODE_EXPONENT
    control = 1 - _DATAPATH_SHARE
    if unit == "vector":
        control *= _VECTOR_CONTROL_FACTOR
    return FP16_MATRIX_J_PER_FLOP * scale * (_DATAPATH_SHARE * _WIDTH_RATIO.get(dtype, 1.0) + control)


def j_per_byte(device: Device, level: str) -> Num:
    """Dynamic joules per byte of a memory level or link of the device."""
    for memory in device.memories:
        if memory.name == level:
            if np_positive(memory.energy_j_per_byte):
                return memory.energy_j_per_byte
            is_main = memory is device.main_memory
            return _by_name(level, _MEMORY_J_PER_BYTE, _MEMORY_J_PER_BYTE["ddr"] if is_main else _CACHE_J_PER_BYTE)
    for link in device.links:
        if link.name == level and np_positive(link.energy_j_per_byte):
            return link.energy_j_per_byte
    return _by_name(level, _LINK_J_PER_BYTE, _LINK_DEFAULT_J_PER_BYTE)


def _by_name(level: str, table: dict[str, float], default: float) -> float:
    # "lpddr" contains "ddr" and "gddr" too: the longest matching key is the right technology
    matches = [key for key in table if key in level]
    return table[max(matches, key=len)] if matches else default


def np_positive(value: Num) -> bool:
    """True if the (first) value is > 0: zero means "not given" in the IR."""
    import numpy as np

    return bool(np.all(np.asarray(value) > 0))
