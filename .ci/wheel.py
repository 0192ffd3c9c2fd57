"""Builds the wheel, installs it in a clean environment, runs the README there and shows every catalog entry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))
import readme  # noqa: E402

# Runs inside the clean environment: `show` of every entry through the command line's own entry function.
SHOW_ALL = """
import contextlib, io
from hwsim import content
from hwsim.cli.main import run
kinds = ("accelerator", "node", "cluster", "memory", "model", "mapper", "price")
shown = 0
for kind in kinds:
    for name in content.catalog(kind):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = run(["show", name, "--kind", kind])
        assert code == 0 and out.getvalue().strip(), (kind, name, code)
        shown += 1
print(f"{shown} passed, 0 failed")
"""


def sh(command: str, where: Path, path: str) -> None:
    """Run one command line in `where` with the clean environment first in PATH."""
    print(f"$ {command}", flush=True)
    environment = {**os.environ, "PATH": path}
    environment.pop("PYTHONPATH", None)
    environment.pop("VIRTUAL_ENV", None)
    subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=where, env=environment, check=True)


def main(scratch: Path) -> None:
    """Fails with the command's own exit code."""
    clean, empty = scratch / "clean", scratch / "empty"
    empty.mkdir()
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "-o", str(scratch / "dist"), str(ROOT)], check=True, stdout=-3
    )
    venv.create(clean, with_pip=True)
    (wheel,) = (scratch / "dist").glob("*.whl")
    path = f"{clean / 'bin'}{os.pathsep}{os.environ['PATH']}"
    sh(f"python -m pip install -q {wheel}", empty, path)
    for command in readme.commands():
        if command != readme.test_command():
            # the wheel stands for the checkout: `pip install .` has been done
            sh(command.replace("pip install . && ", ""), empty, path)
    (empty / "show_all.py").write_text(SHOW_ALL)
    sh("python show_all.py", empty, path)
    document = subprocess.run(
        [str(clean / "bin" / "hwsim"), "evaluate", "llama7b", "--hw", "a100.yaml", "--format", "json"],
        cwd=empty, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert json.loads(document)["schema"] == "hwsim/estimate@1"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
