"""`hwsim doctor`: environment, solvers, optional packages, content."""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata

from hwsim.cli import options as o

_CORE = (
    "numpy",
    "scipy",
    "networkx",
    "simpy",
    "pulp",
    "highspy",
    "plotly",
    "pydantic",
    "ruamel.yaml",
    "typer",
    "rich",
    "jinja2",
)
EXTRAS = {
    "pandas": "df",
    "aiconfigurator_core": "silicon",
    "pyarrow": "silicon",
    "ipykernel": "notebook",
    "torch": "cuda",
}


def command(format_: o.Format = "table") -> None:
    """What hwsim finds on this machine; missing optional packages name the pip line that brings them."""
    form = o.check_format(format_, ("table", "json"))
    facts = collect()
    if form == "json":
        o.emit(o.to_json(facts), None)
        return
    from hwsim.report.table import grid, render

    o.emit(render(grid(("what", "found"), [(k, str(v)) for k, v in facts.items()], (0, 1))), None)


def collect() -> dict[str, str]:
    """Name -> what was found."""
    from hwsim import __version__, content

    facts = {"hwsim": __version__, "python": platform.python_version(), "system": platform.platform()}
    facts["content"] = str(content.root())
    for kind in ("accelerator", "node", "cluster", "model", "mapper", "price", "calibration"):
        facts[f"{kind} files"] = str(len(content.catalog(kind)))
    for package in _CORE:
        facts[package] = _version(package)
    for module, extra in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        facts[f"{module} (optional)"] = _version(module) if found else f'missing: pip install "hwsim[{extra}]"'
    facts["CBC solver"] = _cbc()
    return facts


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _cbc() -> str:
    """Whether the CBC that PuLP bundles runs here."""
    try:
        import pulp

        return "ok" if pulp.PULP_CBC_CMD(msg=False).available() else "bundled binary does not run on this machine"
    except Exception as error:
        return f"not usable: {error}"
