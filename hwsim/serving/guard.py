"""Guarded calls into a user's policy or router: a crash or nonsense there is an error of the file, with its line.

Only what the user gave is guarded; shipped policies are called directly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hwsim.errors import InputError
from hwsim.mapping.foreign import run_foreign
from hwsim.serving.request import Request

Breach = tuple[str, str, str]  # law, what is wrong, what was seen
_OTHERS: Final = ("horizon", "ran", "went_on", "form", "ended", "left", "forget")


class PluginFailedError(InputError):
    """A policy or router raised something else than an error of hwsim, or answered nonsense; `law` says which."""

    law = "answers"


def file_of(cls: type) -> Path:
    """The file that defines a class; a notebook cell or a session has a made-up name."""
    try:
        return Path(inspect.getsourcefile(cls) or cls.__module__)
    except (OSError, TypeError):
        code = next((f.__code__ for f in vars(cls).values() if inspect.isfunction(f)), None)
        return Path(code.co_filename if code is not None else cls.__module__)


def guarded(cls: type) -> type:
    """A subclass of a user's class whose calls are guarded and whose plans and picks are checked."""
    if cls.__module__.startswith("hwsim."):
        return cls
    body: dict[str, Any] = {"__slots__": (), "__module__": cls.__module__}
    for name in _OTHERS:
        method = getattr(cls, name, None)
        if inspect.isfunction(method) and not method.__module__.startswith("hwsim."):
            body[name] = _plain(cls, method)
    for name, check in (("plan", plan_breach), ("pick", pick_breach)):
        if inspect.isfunction(getattr(cls, name, None)):
            body[name] = _checked(cls, getattr(cls, name), check)
    return type(cls.__name__, (cls,), body)


def _plain(cls: type, method: Callable[..., Any]) -> Callable[..., Any]:
    file, name = file_of(cls), method.__name__

    def call(*given: Any) -> Any:
        answer = run_foreign(lambda: method(*given), file, f"{cls.__name__}.{name} fails", PluginFailedError)
        if name == "horizon" and not (_whole(answer) and answer >= 1):
            raise _failed(cls, method, ("answers", "horizon answers no count of at least 1", repr(answer)[:80]))
        return answer

    return call


def _checked(cls: type, method: Callable[..., Any], check: Callable[..., Breach | None]) -> Callable[..., Any]:
    file, name = file_of(cls), method.__name__

    def call(self: Any, *given: Any) -> Any:
        answer = run_foreign(lambda: method(self, *given), file, f"{cls.__name__}.{name} fails", PluginFailedError)
        breach = check(self, answer, *given)
        if breach is not None:
            raise _failed(cls, method, breach)
        return answer

    return call


def _failed(cls: type, method: Callable[..., Any], breach: Breach) -> PluginFailedError:
    law, what, seen = breach
    error = PluginFailedError(
        f"{cls.__name__}.{method.__name__}: {what}",
        where=f"{file_of(cls)}:{method.__code__.co_firstlineno}",
        seen=seen,
        fix="docs/recipes/policy.md says what it may answer",
    )
    error.law = law
    return error


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def plan_breach(policy: Any, answer: Any, replica: Any) -> Breach | None:
    """What is wrong with the plan of a batching policy; None where nothing is."""
    return _shape(answer) or _chunks(answer[0], answer[1], replica) or _kept(policy, answer[0], answer[1], replica)


def _shape(answer: Any) -> Breach | None:
    good = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], list)
    if not good or not isinstance(answer[1], bool):
        return "answers", "a plan is (list of (request, tokens), whether decodes run)", repr(answer)[:80]
    for item in answer[0]:
        if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], Request) and _whole(item[1])):
            return "answers", "a chunk is (request, whole number of tokens)", repr(item)[:80]
    return None


def _chunks(chunks: list[tuple[Request, int]], decoding: bool, replica: Any) -> Breach | None:
    for request, tokens in chunks:
        left = request.prefill - request.processed
        if not 1 <= tokens <= left:
            return "answers", f"a chunk has 1 to {left} tokens here", f"{tokens} of {request!r}"
    if len({request.index for request, _ in chunks}) < len(chunks):
        return "answers", "a request is in two chunks of one iteration", repr(chunks[0][0])
    if decoding and not replica.decodes:
        return "answers", "decodes are to run though nothing decodes", "True"
    return None


def _kept(policy: Any, chunks: list[tuple[Request, int]], decoding: bool, replica: Any) -> Breach | None:
    """Requests and memory are conserved, limits kept, and something runs where something could."""
    kv, begun = replica.kv, len(replica._front) + len(replica._back)
    here = len(replica.waiting) + replica.decodes + len(chunks) + begun
    if here != replica.in_system:
        what = "a request was taken and neither runs nor was put back"
        return "requests", what, f"{here} of {replica.in_system} requests left"
    used = kv.used(replica.passed + decoding)
    if used > kv.total:
        what = "more memory than there is: ask `fits` before `admit`, and `reserve_decode` before decodes"
        return "memory", what, f"{used} of {kv.total} blocks"
    if kv.holders > policy.cap:
        return "cap", "more requests hold memory than `cap`", f"{kv.holders} of {policy.cap}"
    held = kv.holders or not replica.waiting or not replica.fits(replica.waiting[0])
    if not chunks and not decoding and not replica._evicted and (replica.decodes or begun or not held):
        return "ends", "nothing is to run though something could", f"{replica.in_system} requests here"
    return None


def pick_breach(router: Any, answer: Any, request: Any, replicas: Any) -> Breach | None:
    """What is wrong with the pick of a router; None where nothing is. Only routers with a central queue pick none."""
    if answer is None and getattr(router, "central", False):
        return None
    if not any(answer is one or (_whole(one) and one == answer) for one in replicas):
        return "answers", "pick answers one of `replicas`", repr(answer)[:80]
    return None
