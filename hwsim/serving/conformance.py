"""What a batching policy or a router must do, as laws that a user's own can be held against: `check_policy`.

No test framework is needed; `Conformance.raise_if_broken` suits one line of any. Each law is tested on small random
workloads with ample and with scarce memory, on one clock and without events, asked rarely and at every iteration.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from hwsim.errors import CheckFailedError, HwsimError, InputError
from hwsim.mapping.conformance.kit import Conformance, LawResult
from hwsim.serving.cluster import Cluster
from hwsim.serving.guard import PluginFailedError
from hwsim.serving.iteration_time import ClosedFormTime
from hwsim.serving.plugins import Plugin, make, named_in, plugin_of
from hwsim.serving.policies import make_policy
from hwsim.serving.routers import make_router
from hwsim.serving.simulate import simulate
from hwsim.serving.spec import ClusterSpec, ReplicaSpec
from hwsim.serving.traces import Trace

POLICY_LAWS: Final = {
    "answers": "every call answers what its protocol says, without an exception",
    "requests": "no request is lost on its way from the queue to a chunk",
    "memory": "KV blocks in use never exceed the pool, and all are free at the end",
    "cap": "at most `cap` requests hold memory; an iteration has at most `chunk` tokens where the class has a budget",
    "ends": "every request ends with all its tokens",
    "repeatable": "the same run twice gives equal times",
    "jumps": "jumps over decode iterations give the times of asking at each (`Patient` and `horizon` keep their word)",
    "events": "at most one event an iteration, beside three an arrival",
}
ROUTER_LAWS: Final = {name: POLICY_LAWS[name] for name in ("answers", "ends", "repeatable")}
CASES: Final = 12
_TIME: Final = ClosedFormTime(0.001, 0.006, 2.7e-5, 4.9e-8, 1.3e-9)
_CLOSE: Final = 1e-9
_REQUESTS: Final = 40


class Checked(Conformance):
    """All laws of one policy or router; `mapper` is its name."""

    def raise_if_broken(self) -> None:
        """Raise CheckFailedError that lists what broke."""
        broken = [f"{law.name}: {law.broken[0]}" for law in self.laws if not law.holds]
        if broken:
            raise CheckFailedError(
                f"{self.mapper} breaks {len(broken)} of {len(self.laws)} laws", seen="; ".join(broken)
            )

    def __str__(self) -> str:
        return "\n".join(line for line in super().__str__().splitlines() if "exhaustive optimum" not in line)


def check_policy(policy: Any, **options: int) -> Checked:
    """Hold a batching policy against its laws.

    Parameters
    ----------
    policy: a path (``./mine.py`` or ``./mine.py:Name``), a class, an instance, or a shipped name.
    options: arguments of the policy (cap, chunk).

    Never raises for what the policy does. Raises InputError, UnknownNameError: no such policy, or it cannot be made.
    """
    plugin = plugin_of(policy, "policy")
    make(plugin, "policy", make_policy, options)
    notes = [_policy_case(plugin, case, options) for case in _cases()]
    return _report(str(plugin), POLICY_LAWS, notes)


def check_router(router: Any, replicas: int = 3) -> Checked:
    """Hold a router against its laws, on `replicas` equal replicas; `router` as in `check_policy`."""
    plugin = plugin_of(router, "router")
    make(plugin, "router", make_router, {})
    notes = []
    for trace, blocks in _cases():
        spec = ClusterSpec([ReplicaSpec(_TIME, kv_blocks=blocks, watermark=0.0)] * replicas, plugin)
        notes.append(_compared(lambda spec=spec, trace=trace: _ends(trace, spec), ("repeatable",)))  # type: ignore[misc]
    return _report(str(plugin), ROUTER_LAWS, notes)


def check_file(given: str) -> list[Checked]:
    """All policies and routers of a Python file (or the one that ``mine.py:Name`` says), each held against its laws.

    Raises InputError: no such file, it fails to load, or it holds none; policies for pipelined replicas do not count.
    """
    checks: dict[str, Callable[[Any], Checked]] = {"plan": check_policy, "pick": check_router}
    found = [checks[method](one) for method in checks for one in named_in(given, method)]
    if not found:
        raise InputError("the file holds no class with plan or pick", where=given, fix="docs/recipes/policy.md")
    return found


def _cases() -> Iterator[tuple[Trace, int]]:
    """(requests, KV blocks): bursts and gaps, memory for everything or for the longest request and a little more."""
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        times = np.cumsum(rng.exponential(0.05, _REQUESTS) * (rng.random(_REQUESTS) < 0.7))
        prompt, output = rng.integers(1, 700, _REQUESTS), rng.integers(1, 90, _REQUESTS)
        trace = Trace("check", *(array("d", times), array("l", prompt.tolist()), array("l", output.tolist())))
        yield trace, 4000 if seed % 2 else int((prompt + output).max()) // 16 + 30


def _policy_case(plugin: str | Plugin, case: tuple[Trace, int], options: dict[str, int]) -> dict[str, str]:
    """Law -> what broke it, in one case."""
    trace, blocks = case
    base = plugin.base if isinstance(plugin, Plugin) else plugin
    size = 1 if base == "lightllm" else 16  # it counts memory by the token
    spec = ClusterSpec([ReplicaSpec(_TIME, plugin, options, kv_blocks=blocks * 16 // size, block_tokens=size)])

    def ends(prepare: Callable[[Cluster], None] | None = None) -> Any:
        return _ends(trace, spec, prepare)

    watch = _Watch()
    broken = _compared(lambda: ends(watch), ("repeatable",))
    broken |= {law: what for law, what in watch.broken.items() if law not in broken}
    if not broken:
        broken |= _compared(ends, ("jumps",), lambda: ends(_at_each_iteration))
    return broken


def _compared(run: Callable[[], Any], laws: tuple[str, ...], other: Callable[[], Any] | None = None) -> dict[str, str]:
    """Times of two runs that must be equal; law -> what broke it. Errors become breaches."""
    try:
        first, second = run(), (other or run)()
    except PluginFailedError as error:
        return {error.law: f"{error.what} ({error.where}): {error.seen}"}
    except HwsimError as error:
        return {"ends": f"{error.what}: {error.seen}"}
    worst = float(np.max(np.abs(first - second)))
    return {} if worst <= _CLOSE else dict.fromkeys(laws, f"the ends of requests differ by up to {worst:.3g} s")


def _ends(trace: Trace, spec: ClusterSpec, prepare: Callable[[Cluster], None] | None = None) -> Any:
    """End of each request in seconds."""
    return simulate(trace, spec, prepare=prepare).column("end_s").copy()


def _at_each_iteration(cluster: Cluster) -> None:
    """Everything through the clock, and the policy asked again after every iteration."""
    cluster.dynamic = True
    for replica in cluster.everyone:
        replica._asks = True
        replica.policy = _Asked(replica.policy)


class _Asked:
    """A policy that wants to be asked again after every iteration."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def horizon(self, replica: Any) -> int:
        return 1


class _Watch:
    """Counts events and looks at the tokens of each iteration of a run on the clock."""

    def __init__(self) -> None:
        self.broken: dict[str, str] = {}

    def __call__(self, cluster: Cluster) -> None:
        cluster.dynamic = True
        (replica,) = cluster.everyone
        self.events, at = 0, cluster.clock.at

        def counted(*given: Any, **named: Any) -> None:
            self.events += 1
            most = replica.iterations + 3 * (cluster.arrived + 1)
            if self.events > most + 1:
                self.broken["events"] = f"{self.events} events by iteration {replica.iterations}"
            at(*given, **named)

        cluster.clock.at = counted  # type: ignore[method-assign]
        begin, budget = replica._begin, int(getattr(replica, "_budget", 0))

        def begun(chunks: Any, decoding: bool, now_s: float) -> None:
            tokens = sum(n for _, n in chunks) + (replica.decodes if decoding else 0)
            if budget and chunks and tokens > max(budget, replica.decodes):
                self.broken["cap"] = f"{tokens} tokens in an iteration of at most {budget}"
            begin(chunks, decoding, now_s)

        replica._begin = begun


def _report(name: str, laws: dict[str, str], notes: list[dict[str, str]]) -> Checked:
    found = tuple(
        LawResult(law, text, len(notes), tuple(note[law] for note in notes if law in note))
        for law, text in laws.items()
    )
    return Checked(name, found)
