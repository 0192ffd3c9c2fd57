"""Exact tilings without a solver: every path of each dimension in arrays, joined under the limits that they share."""
