"""Two GPUs from their datasheets for kernel-model tests (NVIDIA A100 SXM4 80 GB, H100 SXM5)."""

from hwsim.cost.gpu.facts import Facts

A100 = Facts(
    "a100", "ampere", 108, 1.41e9, 40e6, 2039e9, {"bf16": 312e12, "fp16": 312e12, "int8": 624e12}, {"fp32": 19.5e12}
)
H100 = Facts(
    "h100", "hopper", 132, 1.98e9, 50e6, 3350e9, {"bf16": 989e12, "fp16": 989e12, "fp8": 1979e12}, {"fp32": 67e12}
)
