"""Plain data as readable YAML: keys in their order, short lists and mappings on one line."""

from __future__ import annotations

import io
from typing import Any

_FLOW_WIDTH = 110


def to_yaml(data: Any) -> str:
    """YAML 1.2 text of plain data (dictionaries, lists, strings, numbers, booleans, None)."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    def convert(value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            node: Any = CommentedMap((k, convert(v, depth + 1)) for k, v in value.items())
        elif isinstance(value, list | tuple):
            node = CommentedSeq(convert(v, depth + 1) for v in value)
        else:
            return value
        if depth and len(repr(value)) <= _FLOW_WIDTH:
            node.fa.set_flow_style()
        return node

    writer = YAML()
    writer.width = 140
    writer.default_flow_style = False
    buffer = io.StringIO()
    writer.dump(convert(data, 0), buffer)
    return buffer.getvalue()
