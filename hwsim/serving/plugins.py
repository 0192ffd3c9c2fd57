"""Batching policies and routers of the user: a path to a Python file, a class or an instance, wherever a name does.

`./mine.py` holds one class with `plan` (a policy; `form` for pipelined replicas) or `pick` (a router);
`./mine.py:Name` says which. Calls into them are guarded (`hwsim.serving.guard`): what goes wrong there is said with
the file and its line.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hwsim.errors import InputError, unknown_name
from hwsim.mapping.foreign import run_foreign
from hwsim.serving.guard import PluginFailedError, file_of, guarded
from hwsim.serving.policies import POLICIES
from hwsim.serving.routers import ROUTERS

_FILE: Final = re.compile(r"^(?P<path>.*\.py)(?::(?P<name>\w+))?$", re.DOTALL)
_METHODS: Final = {"policy": ("plan", "form"), "router": ("pick",)}
_SHIPPED: Final[Mapping[str, Mapping[str, Any]]] = {"policy": POLICIES, "router": ROUTERS}
_NEEDED: Final = {
    "plan": ("cap", "by_arrival", "horizon", "ran"),
    "form": ("cap", "holds", "ended", "left", "forget"),
    "pick": ("static",),
}
_FIX: Final = {
    "plan": "inherit hwsim.serving.policies.Patient and give `cap` (docs/recipes/policy.md)",
    "form": "inherit hwsim.serving.staged.Simple and give `cap` (docs/recipes/policy.md)",
    "pick": "give the class `static = False` (docs/recipes/policy.md)",
}


@dataclass(frozen=True, slots=True, eq=False)
class Plugin:
    """A policy or router that the user gave: a class, or an instance that each replica gets a copy of.

    Attributes
    ----------
    kind: ``policy`` or ``router``. made_of: the class or instance. name: as documents show it.
    path, sha256: its file, where it was given by path.
    """

    kind: str
    made_of: Any
    name: str
    path: Path | None = None
    sha256: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def type(self) -> type:
        return self.made_of if isinstance(self.made_of, type) else type(self.made_of)

    @property
    def base(self) -> str:
        """The shipped policy that it inherits: its engine reserves memory, tokenizes and so on as that one's does."""
        names = {made: name for name, made in _SHIPPED[self.kind].items()}
        return next((names[parent] for parent in self.type.__mro__ if parent in names), "")

    def make(self, method: str = "", **options: Any) -> Any:
        """A fresh, guarded object; `method` is the one that is going to be called (default: the kind's first).

        Raises InputError: it lacks members, or takes no such option; PluginFailedError: its constructor fails.
        """
        method = method or _METHODS[self.kind][0]
        if not callable(getattr(self.type, method, None)):
            told = " for pipelined replicas" if method == "form" else ""
            raise InputError(
                f"a {self.kind}{told} has a method {method}", where=str(file_of(self.type)), seen=self.name
            )
        made = run_foreign(lambda: self._made(options), file_of(self.type), f"{self.name} fails", PluginFailedError)
        lacking = [name for name in _NEEDED[method] if not hasattr(made, name)]
        if lacking:
            seen = f"{self.name} has no {', '.join(lacking)}"
            raise InputError(
                f"the {self.kind} lacks members", where=str(file_of(self.type)), seen=seen, fix=_FIX[method]
            )
        for name, value in options.items():
            if getattr(made, name, None) != value:
                raise InputError(f"{self.name} takes no {name}", where=str(file_of(self.type)), seen=f"{name}={value}")
        return made

    def _made(self, options: Mapping[str, Any]) -> Any:
        cls = guarded(self.type)
        if isinstance(self.made_of, type):
            taken = inspect.signature(self.type).parameters
            return cls(**{name: value for name, value in options.items() if name in taken})
        made = copy.deepcopy(self.made_of)
        made.__class__ = cls
        for name, value in options.items():
            if hasattr(made, name):
                setattr(made, name, value)
        return made


def is_file(given: Any) -> bool:
    """Whether an option names a Python file, perhaps with a class."""
    return isinstance(given, str) and _FILE.match(given) is not None


def beside(given: Any, folder: Path) -> Any:
    """An option of a file: a relative path to a Python file starts at the folder of that file."""
    return str(folder / given) if is_file(given) else given


def plugin_of(given: Any, kind: str, where: str = "") -> str | Plugin:
    """A shipped name as it is, anything else as a `Plugin`.

    Raises UnknownNameError: no shipped name. InputError: the file fails to load or holds no such class.
    """
    if isinstance(given, Plugin):
        return given
    if isinstance(given, str):
        return _from_file(given, kind) if is_file(given) else _shipped(given, kind, where)
    owner = given if isinstance(given, type) else type(given)
    if not any(callable(getattr(owner, method, None)) for method in _METHODS[kind]):
        methods = " or ".join(_METHODS[kind])
        raise InputError(f"a {kind} is a name, a path, or a class with {methods}", where=where, seen=repr(given)[:60])
    return Plugin(kind, given, owner.__name__)


def with_plugins(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run with policy and router looked up. Raises as `plugin_of`."""
    return {**given, **{kind: plugin_of(given[kind], kind, f"--{kind}") for kind in _METHODS}}


def make(given: Any, kind: str, shipped: Callable[..., Any], options: Mapping[str, Any], method: str = "") -> Any:
    """A fresh policy or router: by `shipped` for a name, else the plugin's. Raises as `plugin_of` and `Plugin.make`."""
    found = plugin_of(given, kind)
    return shipped(found, **options) if isinstance(found, str) else found.make(method, **options)


def named_in(given: str, method: str) -> list[str]:
    """``mine.py:Name`` of each class of a file that has a method. Raises InputError: no such file, it fails to load."""
    path, name = _parts(given)
    kind = next(kind for kind, methods in _METHODS.items() if method in methods)
    classes = {n: c for n, c in _classes(path, kind).items() if callable(getattr(c, method, None))}
    return [f"{path}:{n}" for n in classes if name in (None, n)]


def _parts(given: str) -> tuple[Path, str | None]:
    """(path, class or None) of ``mine.py:Name``. Raises InputError where there is no such file."""
    match = _FILE.match(given)
    path = Path(match["path"] if match else given).expanduser()
    if not path.is_file():
        raise InputError("no such file", where=str(path), fix="the path of a Python file, or a shipped name")
    return path, match["name"] if match else None


def _shipped(name: str, kind: str, where: str) -> str:
    if name not in _SHIPPED[kind]:
        what = "batching policy" if kind == "policy" else kind
        raise unknown_name(what, name, _SHIPPED[kind], where=where)
    return name


def _from_file(given: str, kind: str) -> Plugin:
    """The class of a file. Raises InputError."""
    path, name = _parts(given)
    classes = _classes(path, kind)
    if name is None and len(classes) != 1:
        methods = " or ".join(_METHODS[kind])
        seen = f"{', '.join(classes)}" if classes else f"no class with {methods}"
        fix = f"{path.name}:{next(iter(classes))}" if classes else "docs/recipes/policy.md"
        raise InputError(f"the file does not say which {kind} to use", where=str(path), seen=seen, fix=fix)
    if name is not None and name not in classes:
        raise unknown_name(f"{kind} in the file", name, classes, where=str(path))
    name, made_of = (name, classes[name]) if name is not None else next(iter(classes.items()))
    return Plugin(kind, made_of, f"{path.name}:{name}", path, hashlib.sha256(path.read_bytes()).hexdigest())


def _classes(path: Path, kind: str) -> dict[str, Any]:
    """Name -> class of that kind that the file itself defines. Raises InputError with the line where loading fails."""
    module = load_file(path, kind)
    return {
        name: found
        for name, found in vars(module).items()
        if isinstance(found, type)
        and found.__module__ == module.__name__
        and any(callable(getattr(found, method, None)) for method in _METHODS[kind])
    }


def load_file(path: Path, kind: str) -> Any:
    """A Python file as a module. Raises InputError with the line where it fails."""
    import sys

    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"hwsim_{kind}_{path.stem}_{key}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"a {kind} is a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look the module of a class up there
    loader = spec.loader
    run_foreign(lambda: loader.exec_module(module), path, f"the {kind} file fails to load", PluginFailedError)
    return module
