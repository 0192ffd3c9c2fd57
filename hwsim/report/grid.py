"""Plain tables for a terminal: as wide as the cells off a terminal, in blocks side by side where it is too narrow.

No cell is broken inside a word and no number is torn from its unit: columns that do not fit beside each other follow
below, with the leading columns repeated. Columns of text may break between words.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

WIDTH = 1000  # off a terminal nothing is folded: a table is as wide as its cells
_WIDE_GAP, _NARROW_GAP = 3, 1  # characters between columns
_TEXT_WIDTH = 16  # characters below which a column of text is not squeezed


def terminal_width() -> int:
    """Characters of a line: of the terminal, or as many as any table needs off a terminal."""
    return max(60, shutil.get_terminal_size((120, 24)).columns) if sys.stdout.isatty() else WIDTH


def grid(header: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> Any:
    """A plain table; columns in `left` align left, the others right."""
    from rich.console import Group

    natural = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    room = terminal_width()
    if sum(natural) + _WIDE_GAP * (len(header) - 1) <= room:
        return _table(header, body, left, dict(enumerate(natural)), _WIDE_GAP)
    least = [_least(i, header, body, left) for i in range(len(header))]
    wide = [n if i in left else least[i] for i, n in enumerate(natural)]
    blocks = [_squeezed(block, wide, least, room) for block in _blocks(least, _keys(left, len(header)), room)]
    tables = [_table(header, body, left, widths, _NARROW_GAP) for widths in blocks]
    return Group(*[part for table in tables for part in ("", table)][1:]) if len(tables) > 1 else tables[0]


def _keys(left: Sequence[int], columns: int) -> list[int]:
    """The leading columns of text, at most two: what names a row, repeated in every block."""
    keys = [0]
    if 0 in left and 1 in left and columns > 3:
        keys.append(1)
    return keys


def _least(index: int, header: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[int]) -> int:
    """Narrowest legible width: whole cells of numbers, whole words of text and of the title."""
    cells = [line[index] for line in body]
    title = max((len(word) for word in header[index].split()), default=1)
    if index not in left:
        return max(title, *map(len, cells)) if cells else title
    words = [len(word) for text in cells for word in text.split()]
    return max(title, *words, min(_TEXT_WIDTH, max(map(len, cells)))) if words else title


def _blocks(least: Sequence[int], keys: Sequence[int], room: int) -> list[list[int]]:
    """Columns packed in their order into blocks that start with the key columns and fit the room."""
    blocks: list[list[int]] = []
    for index in (i for i in range(len(least)) if i not in keys):
        wanted = [*(blocks[-1] if blocks else keys), index]
        fits = sum(least[i] for i in wanted) + _NARROW_GAP * (len(wanted) - 1) <= room
        if blocks and fits:
            blocks[-1].append(index)
        else:
            blocks.append([*keys, index])
    return blocks or [list(keys)]


def _squeezed(block: Sequence[int], wide: Sequence[int], least: Sequence[int], room: int) -> dict[int, int]:
    """Width of each column of a block: the widest text gives way first until the block fits the room."""
    widths = {index: wide[index] for index in block}
    excess = sum(widths.values()) + _NARROW_GAP * (len(block) - 1) - room
    while excess > 0 and (loose := [i for i in block if widths[i] > least[i]]):
        widths[max(loose, key=lambda i: widths[i])] -= 1
        excess -= 1
    return widths


def _table(
    header: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[int], widths: dict[int, int], gap: int
) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, (gap - 1) // 2))
    for index, width in widths.items():
        justify = "left" if index in left else "right"
        table.add_column(Text(header[index]), justify=justify, overflow="fold", width=width)  # type: ignore[arg-type]
    for line in body:
        table.add_row(*(Text(line[index]) for index in widths))
    return table
