"""Options of a run that change the cluster while it serves: migration, autoscaling, failures, pools, partition.

Every option takes text (``gap=0.2,period=1s``) or a mapping; each becomes a `prepare` of `hwsim.serving.control`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hwsim import units
from hwsim.errors import InputError
from hwsim.serving.control import Autoscale, Failures, Migration, Prepare, QueueLimit, together
from hwsim.serving.disaggregate import Disaggregation
from hwsim.serving.fields import Fields, fields_of
from hwsim.serving.front import Engine
from hwsim.serving.partition import Partition, halves
from hwsim.serving.spec import ReplicaSpec, ServiceLevel

MIGRATION: Final[Fields] = {
    "gap": "number", "period": "time", "downtime": "time", "bandwidth": "bytes_per_s", "stages": "number",
    "last_tokens": "number",
}  # fmt: skip
AUTOSCALE: Final[Fields] = {
    "most": "number", "least": "number", "high": "number", "low": "number", "period": "time", "startup": "time",
}  # fmt: skip
PARTITION: Final[Fields] = {
    "share": "number", "saturation": "number", "step": "number", "period": "time", "switch": "time",
    "dynamic": "number",
}  # fmt: skip
_INTEGERS: Final = ("most", "least", "stages", "last_tokens")
_SECONDS: Final = {"period": "period_s", "downtime": "downtime_s", "startup": "startup_s", "switch": "switch_s"}


def replicas_of(given: Mapping[str, Any], engine: Engine, decode: Engine | None) -> list[ReplicaSpec]:
    """Replicas of the run: `replicas` of one kind, a decode pool of another machine, or the halves of one device.

    Raises InputError where options contradict each other.
    """
    count, prefill = int(given["replicas"]), int(given["prefill_pool"])
    if given.get("partition") is not None:
        if count != 1 or prefill:
            raise InputError("a partition splits one replica and takes no pools", where="--partition", seen=str(count))
        return halves(engine.replica)
    if prefill and prefill >= count:
        raise InputError("--prefill-pool must leave a replica to decode", seen=f"{prefill} of {count}")
    if decode is None:
        return [engine.replica] * count
    if not prefill:
        raise InputError("a decode machine needs a prefill pool", where="--decode-hw", fix="--prefill-pool N")
    return [engine.replica] * prefill + [decode.replica] * (count - prefill)


def prepare_of(given: Mapping[str, Any], engine: Engine, level: ServiceLevel, layers: int) -> Prepare | None:
    """Everything that the options add to the cluster; None where nothing. Raises InputError, UnknownNameError."""
    _refuse_stages(given, engine)
    parts: list[Prepare] = []
    if int(given["prefill_pool"]):
        parts.append(lambda cluster: _pools(given, engine, layers).prepare(cluster))
        _pools(given, engine, layers)  # refuse bad options before the run
    if given.get("partition") is not None:
        made = _named(given["partition"], PARTITION, "--partition")
        dynamic = bool(made.pop("dynamic", 0))
        parts.append(lambda cluster: Partition(**made, level=level if dynamic else None).prepare(cluster))
    if given.get("migration") is not None:
        moved = _migration(given["migration"], engine)
        parts.append(lambda cluster: Migration(**moved).prepare(cluster))
    if given.get("autoscale") is not None:
        scale = {"most": int(given["replicas"]) * 2, **_named(given["autoscale"], AUTOSCALE, "--autoscale")}
        if scale["most"] < scale.get("least", 1):
            seen = f"least {scale['least']}, most {scale['most']}"
            raise InputError("--autoscale needs least <= most", where="--autoscale", seen=seen)
        parts.append(lambda cluster: Autoscale(engine.replica, **scale).prepare(cluster))
    if given.get("failures") is not None:
        parts.append(Failures(outages(given["failures"])).prepare)
    if given.get("queue_limit") is not None:
        parts.append(QueueLimit(int(given["queue_limit"])).prepare)
    return together(*parts) if parts else None


def _refuse_stages(given: Mapping[str, Any], engine: Engine) -> None:
    """A partition divides the processors of one device, which holds all layers."""
    if engine.replica.stages > 1 and given.get("partition"):
        raise InputError("a partition divides one device, not pipeline stages", where="--partition", fix="--pp 1")


def _named(given: Any, known: Fields, where: str) -> dict[str, Any]:
    """Fields under the names that the classes use."""
    found = fields_of(given, known, where)
    for name, value in found.items():
        if not value >= (1 if name in _INTEGERS else 0):
            raise InputError(f"{where} {name} is too small", where=where, seen=str(value))
    return {_SECONDS.get(k, k): int(v) if k in _INTEGERS else v for k, v in found.items()}


def _migration(given: Any, engine: Engine) -> dict[str, Any]:
    found = _named(given, MIGRATION, "--migration")
    bandwidth = found.pop("bandwidth", engine.link_bytes_per_s)
    if bandwidth <= 0:
        raise InputError(
            "the hardware has no link that could carry KV caches", where="--migration", fix="bandwidth=8GB/s"
        )
    return {**found, "kv_bytes_per_token": engine.kv_bytes_per_token, "bandwidth_bytes_per_s": bandwidth}


def _pools(given: Mapping[str, Any], engine: Engine, layers: int) -> Disaggregation:
    link = given.get("kv_link")
    bandwidth = engine.link_bytes_per_s if link is None else units.parse(link, "bytes_per_s", where="--kv-link")
    if bandwidth <= 0:
        raise InputError("the hardware has no link that could carry KV caches between pools", where="--prefill-pool")
    how = given.get("kv_transfer", "serial")
    if how not in ("serial", "layerwise"):
        raise InputError("KV caches are sent serial or layerwise", where="--kv-transfer", seen=str(how))
    return Disaggregation(
        prefill=int(given["prefill_pool"]),
        kv_bytes_per_token=engine.kv_bytes_per_token,
        bandwidth_bytes_per_s=bandwidth,
        latency_s=engine.link_latency_s,
        hidden=(layers - 1) / layers if how == "layerwise" and layers > 1 else 0.0,
        mixed=int(given.get("mixed") or 0),
        links="replica",
    )


def outages(given: Any) -> list[tuple[int, float, float | None]]:
    """``0:10s:60s,2:30s`` (replica, down, up or never) as seconds; lists of such triples are taken too.

    Raises InputError, UnitError.
    """
    rows = given.split(",") if isinstance(given, str) else list(given)
    found: list[tuple[int, float, float | None]] = []
    for row in rows:
        parts = row.split(":") if isinstance(row, str) else list(row) if isinstance(row, list | tuple) else [row]
        if len(parts) not in (2, 3) or not str(parts[0]).strip().isdigit():
            raise InputError("an outage is REPLICA:DOWN[:UP]", where="--failures", seen=str(row), fix="0:10s:60s")
        times = [fields_of({"at": p}, {"at": "time"}, "--failures")["at"] for p in parts[1:] if p is not None]
        found.append((int(parts[0]), times[0], times[1] if len(times) > 1 else None))
    return found
