"""Prints commands of README.md: `test` the one command that installs and tests, `use` the others, one a line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks() -> list[str]:
    """Shell blocks of the README in order."""
    return re.findall(r"```(?:bash|console|sh)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[str]:
    """Command lines of all blocks, comments and blank lines left out."""
    lines = (line.strip() for block in blocks() for line in block.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_command() -> str:
    """The line that runs pytest."""
    (found,) = [line for line in commands() if "pytest" in line]
    return found


if __name__ == "__main__":
    wanted = sys.argv[1]
    if wanted == "test":
        print(test_command())
    else:
        print("\n".join(line for line in commands() if line != test_command()))
