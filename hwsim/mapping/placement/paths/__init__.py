"""Exact placements under few full memories: state graph, Lagrangian bounds, and joins of near-optimal pieces."""
