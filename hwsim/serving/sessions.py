"""Sources that answer: closed-loop users with several turns, and applications made of dependent calls."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwsim.errors import InputError
from hwsim.serving.arrivals import lengths, stream
from hwsim.serving.clock import ARRIVAL
from hwsim.serving.cluster import Cluster
from hwsim.serving.request import Request
from hwsim.serving.result import ServingResult
from hwsim.serving.simulate import finish
from hwsim.serving.spec import ClusterSpec, ServiceLevel

_THINK = 4
_USER_BITS = 32  # blocks of a user's talk are numbered below


class _Answering:
    """A source that adds rows to the record as it goes."""

    listens = True

    def __init__(self) -> None:
        self.pending = 0

    def send(self, cluster: Cluster, time_s: float, prompt: int, output: int, prefix: tuple[int, ...] = ()) -> int:
        """Schedule one request, its prompt made of the blocks `prefix`; its row."""
        index = cluster.record.add(time_s, prompt, output)
        self.pending += 1

        def arrive(event: Any) -> None:
            self.pending -= 1
            request = Request(index, time_s, prompt, output)
            if prefix:
                request.prefix = prefix
            cluster.arrive(request)

        cluster.clock.at(time_s, arrive, None, ARRIVAL)
        return index


class ClosedLoop(_Answering):
    """`users` people, each with `turns` requests: the next comes a think time after the last token.

    With `history` every turn's prompt holds all earlier turns (multi-turn chat). Think times are exponential with mean
    `think_s`; prompt and output lengths are lists that users take in turn. With `block_tokens` > 0 the whole blocks of
    a talk so far are named, so that prefix caches know them again.
    """

    block_tokens = 0

    def __init__(
        self, users: int, turns: int, think_s: float, prompt: Sequence[int], output: Sequence[int], *,
        history: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if users < 1 or turns < 1 or think_s < 0 or not len(prompt) or not len(output):
            raise InputError("a closed loop needs users, turns, a think time >= 0 and lengths")
        self.users, self.turns, self.history = users, turns, history
        self.prompt, self.output = prompt, output
        self.think_s = stream(seed, _THINK).exponential(think_s, (users, turns)) if think_s else None
        self._who: dict[int, tuple[int, int, int]] = {}

    def start(self, cluster: Cluster) -> None:
        self._cluster = cluster
        for user in range(self.users):
            self._ask(user, 0, 0, 0.0)

    def _ask(self, user: int, turn: int, past: int, now_s: float) -> None:
        row = user * self.turns + turn
        prompt = int(self.prompt[row % len(self.prompt)]) + (past if self.history else 0)
        output = int(self.output[row % len(self.output)])
        wait = float(self.think_s[user, turn]) if self.think_s is not None else 0.0
        blocks = prompt // self.block_tokens if self.block_tokens else 0
        prefix = tuple((user << _USER_BITS) + block for block in range(blocks))
        index = self.send(self._cluster, now_s + wait, prompt, output, prefix)
        self._who[index] = (user, turn, prompt + output)

    def finished(self, request: Request, now_s: float) -> None:
        user, turn, past = self._who.pop(request.index)
        if turn + 1 < self.turns:
            self._ask(user, turn + 1, past, now_s)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an application: tokens, the calls it waits for, and time outside (a tool, the network)."""

    name: str
    prompt: int
    output: int
    after: tuple[str, ...] = ()
    delay_s: float = 0.0


class Applications(_Answering):
    """Copies of a DAG of calls, one started at each time of `starts_s` (Parrot, LLMCompiler).

    `ends_s[i]` is when copy i's last call has finished.
    """

    def __init__(self, calls: Sequence[Call], starts_s: Sequence[float]) -> None:
        super().__init__()
        names = [call.name for call in calls]
        if len(set(names)) != len(names) or any(n not in names for c in calls for n in c.after):
            raise InputError("calls need distinct names and known predecessors")
        self.calls, self.starts_s = tuple(calls), tuple(starts_s)
        self.ends_s: list[float] = [0.0] * len(self.starts_s)
        self._open: list[dict[str, set[str]]] = [{c.name: set(c.after) for c in calls} for _ in self.starts_s]
        self._who: dict[int, tuple[int, str]] = {}

    def start(self, cluster: Cluster) -> None:
        self._cluster = cluster
        for copy, time_s in enumerate(self.starts_s):
            self._launch(copy, time_s)

    def _launch(self, copy: int, now_s: float) -> None:
        waiting = self._open[copy]
        for call in self.calls:
            if call.name in waiting and not waiting[call.name]:
                del waiting[call.name]
                index = self.send(self._cluster, now_s + call.delay_s, call.prompt, call.output)
                self._who[index] = (copy, call.name)

    def finished(self, request: Request, now_s: float) -> None:
        copy, name = self._who.pop(request.index)
        for before in self._open[copy].values():
            before.discard(name)
        self.ends_s[copy] = now_s
        self._launch(copy, now_s)


def serve(source: Any, spec: ClusterSpec, level: ServiceLevel | None = None, *, prepare: Any = None) -> ServingResult:
    """Run an answering source to its end. Raises InputError where calls wait for each other."""
    cluster = spec.build(0)
    if prepare is not None:
        prepare(cluster)
    result = finish(cluster, source, level)
    if any(getattr(source, "_open", ())):
        raise InputError("calls of the application wait for each other")
    return result


def closed_loop(users: int, turns: int, think_s: float, *, prompt: float, output: float, seed: int = 0) -> ClosedLoop:
    """A closed loop with lognormal lengths of the given means."""
    count = users * turns
    prompts = array("l", lengths("lognormal", prompt, count, seed).tolist())
    outputs = array("l", lengths("lognormal", output, count, seed + 1).tolist())
    return ClosedLoop(users, turns, think_s, prompts, outputs, seed=seed)
