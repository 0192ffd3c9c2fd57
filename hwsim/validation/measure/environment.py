"""Stamp of the machine and software a measurement ran on."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

DEFAULT_CACHE_BYTES = 32 * 2**20  # a typical last-level cache, where the system does not say


def environment() -> dict[str, str]:
    """Machine, operating system, processor, Python and numpy, cores and time (no host or user names)."""
    import numpy

    from hwsim import __version__

    return {
        "hwsim": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": processor_name(),
        "cores": str(os.cpu_count()),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def processor_name() -> str:
    """Marketing name of the processor, or what the platform module knows."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def last_level_cache_bytes() -> int:
    """Size of the farthest cache of core 0; `DEFAULT_CACHE_BYTES` where the system does not say."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        match = re.match(r"(\d+)([KM]?)", path.read_text().strip())
        if match:
            sizes.append(int(match.group(1)) * {"": 1, "K": 2**10, "M": 2**20}[match.group(2)])
    return max(sizes, default=DEFAULT_CACHE_BYTES)
