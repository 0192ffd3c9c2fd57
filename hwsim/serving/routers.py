"""Which replica takes an arriving request. One small class each; `pick` sees all replicas that accept requests."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, Protocol

from hwsim.errors import unknown_name
from hwsim.serving.request import Request


class Router(Protocol):
    """`static` routers ignore the state of the replicas, so a trace can be dealt out before the run."""

    static: bool

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        """The replica for `request`; `replicas` is not empty."""


@dataclass(slots=True)
class RoundRobin:
    """Each replica in turn."""

    turn: int = 0
    static: bool = True

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        chosen = replicas[self.turn % len(replicas)]
        self.turn += 1
        return chosen


@dataclass(slots=True)
class LeastOutstanding:
    """Fewest requests in the system, running ones included; the first among equals."""

    static: bool = False

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        return min(replicas, key=_in_system)


@dataclass(slots=True)
class LeastQueued:
    """Fewest waiting requests, running ones not counted (Vidur's ``lor``); the first among equals."""

    static: bool = False

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        return min(replicas, key=_queued)


@dataclass(slots=True)
class LeastLoaded:
    """Smallest share of KV memory in use or asked for by the queue (Llumnix's virtual usage without headroom)."""

    static: bool = False

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        return min(replicas, key=virtual_usage)


@dataclass(slots=True)
class PrefixAware:
    """Longest cached prefix, unless that replica has `slack` more requests than the emptiest one."""

    slack: int = 16
    static: bool = False

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        least = min(_in_system(r) for r in replicas)
        near = [r for r in replicas if _in_system(r) <= least + self.slack]
        return max(near, key=lambda r: (r.cached_tokens(request), -_in_system(r)))


@dataclass(slots=True)
class SloAware:
    """Smallest predicted time to first token: work already queued at the replica's own speed, plus this prompt."""

    static: bool = False

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        return min(replicas, key=lambda r: r.predicted_first_token_s(request))


@dataclass(slots=True)
class CentralQueue:
    """Requests wait at the router until a replica has fewer than `slots`; the queue of M/M/c."""

    slots: int = 1
    static: bool = False
    central: bool = True

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        return next((r for r in replicas if r.in_system < self.slots), None)


@dataclass(slots=True)
class RandomChoice:
    """Uniform choice from its own stream (Mersenne Twister, as Python's `random.randint`)."""

    seed: int = 42
    static: bool = True
    stream: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.stream = random.Random(self.seed)

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        return replicas[self.stream.randint(1, len(replicas)) - 1]


_in_system: Final = attrgetter("in_system")


def _queued(replica: Any) -> int:
    return len(replica.waiting)


def virtual_usage(replica: Any) -> float:
    """Blocks in use plus blocks the queue asks for, over all blocks."""
    asked = sum(replica.kv.blocks_for(r.prefill) for r in replica.waiting)
    return float((replica.kv_used + asked) / replica.kv.total)


@dataclass(slots=True)
class ByModel:
    """Several models in one cluster: each model's replicas behind a router of their own; None where none is up."""

    make: Callable[[], Router]
    static: bool = False
    selective: bool = True  # not every replica will do, so even the last one is asked about
    routers: dict[str, Router] = field(default_factory=dict)

    def pick(self, request: Request, replicas: Sequence[Any]) -> Any:
        mine = [replica for replica in replicas if replica.spec.model == request.model]
        if request.model not in self.routers:
            self.routers[request.model] = self.make()
        return self.routers[request.model].pick(request, mine) if mine else None


ROUTERS: Final[dict[str, Callable[..., Router]]] = {
    "round_robin": RoundRobin,
    "least_outstanding": LeastOutstanding,
    "lor": LeastQueued,
    "least_loaded": LeastLoaded,
    "random": RandomChoice,
    "central": CentralQueue,
    "prefix_aware": PrefixAware,
    "slo_aware": SloAware,
}


def make_router(name: str, **options: int) -> Router:
    """A fresh router by name. Raises UnknownNameError with the nearest names."""
    if name not in ROUTERS:
        raise unknown_name("router", name, ROUTERS)
    return ROUTERS[name](**options)
