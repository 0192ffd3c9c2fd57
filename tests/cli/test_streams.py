"""Closed, full and narrow streams are no bugs; Ctrl-C says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hwsim.cli import main

COMMAND = f'"{sys.executable}" -m hwsim list formats'


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (f"{COMMAND} >&-", 0, ""),
        (f"{COMMAND}x 2>&-", 2, ""),
        (f"PYTHONIOENCODING=ascii {COMMAND}", 0, ""),
        (f"{COMMAND} | head -1; exit ${{PIPESTATUS[0]}}", 0, ""),
        (f"{COMMAND} > /dev/full", 2, "No space left"),
    ],
)
def test_streams(line: str, code: int, says: str) -> None:
    if "/dev/full" in line and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "bug in hwsim" not in done.stderr and "Traceback" not in done.stderr


def test_an_interrupt_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hwsim.content.catalog", stop)
    assert main.run(["list", "hw"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"
