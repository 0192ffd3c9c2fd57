"""Prefix caching as an option of a run: which part of the KV memory keeps old prompts, and what lies below it.

``share=0.5,host=256GB,host_rate=25GB/s,disk=4TB,disk_rate=6GB/s``. The share of the KV blocks is set aside for the
cache (vLLM keeps old blocks in the same pool and drops them when it runs short: there the border moves with the load).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hwsim.errors import InputError
from hwsim.serving.fields import Fields, fields_of
from hwsim.serving.prefix import Tier
from hwsim.serving.sessions import ClosedLoop
from hwsim.serving.spec import ReplicaSpec
from hwsim.serving.traces import Trace

PREFIX_CACHE: Final[Fields] = {
    "share": "number", "block": "number", "host": "bytes", "host_rate": "bytes_per_s", "disk": "bytes",
    "disk_rate": "bytes_per_s",
}  # fmt: skip
_BLOCK: Final = 512  # tokens of a block in the public traces with prefixes (Mooncake)
_SHARE: Final = 0.5
_RATES: Final = {"host": 25e9, "disk": 6e9}  # PCIe 4.0 x16 and an NVMe drive, bytes/s


def with_prefix_cache(given: Mapping[str, Any], replica: ReplicaSpec) -> ReplicaSpec:
    """The replica with the cache that `prefix_cache` asks for; itself where nothing is asked. Raises InputError."""
    if given.get("prefix_cache") is None:
        return replica
    asked = {
        "share": _SHARE,
        "block": float(_BLOCK),
        **fields_of(given["prefix_cache"], PREFIX_CACHE, "--prefix-cache"),
    }
    share, block = asked["share"], int(asked["block"])
    if not 0 < share < 1 or block < 1:
        raise InputError("the cache takes a share of the KV memory between 0 and 1, in blocks of at least a token",
                         where="--prefix-cache", seen=f"share={share:g}, block={block}")  # fmt: skip
    kept = int(share * replica.kv_blocks)
    tiers = [Tier("hbm", max(1, kept * replica.block_tokens // block))]
    for name in ("host", "disk"):
        tiers += _below(name, asked, replica.kv_bytes_per_token, block)
    return replica.with_(
        kv_blocks=max(1, replica.kv_blocks - kept), prefix_tiers=tuple(tiers), prefix_block_tokens=block
    )


def _below(name: str, asked: Mapping[str, float], token_bytes: float, block: int) -> list[Tier]:
    """A tier below the device's memory, where one is asked for."""
    size, rate = asked.get(name, 0.0), asked.get(f"{name}_rate", _RATES[name])
    if not size:
        return []
    blocks = int(size / (token_bytes * block)) if token_bytes > 0 else 0
    if blocks < 1 or not rate > 0:
        raise InputError("a tier of the prefix cache holds at least a block and has a rate above 0",
                         where=f"--prefix-cache {name}", seen=f"{size:g} bytes, {rate:g} bytes/s")  # fmt: skip
    return [Tier(name, blocks, rate / token_bytes)]


def require_prefixes(given: Mapping[str, Any], source: Any, trace: Trace) -> None:
    """Raise InputError where no request says what its prompt shares with others."""
    if given.get("prefix_cache") is None:
        return
    talks = isinstance(source, ClosedLoop) and source.history
    if trace.prefixes is None and not talks:
        raise InputError(
            "no request says which prefix it shares", where="--prefix-cache",
            fix="a trace with prefix_block_ids or hash_ids, or --closed-loop history=1",
        )  # fmt: skip
    if talks:
        source.block_tokens = int(_asked_block(given))


def _asked_block(given: Mapping[str, Any]) -> float:
    return float(fields_of(given["prefix_cache"], PREFIX_CACHE, "--prefix-cache").get("block", _BLOCK))
