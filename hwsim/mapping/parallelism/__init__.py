"""Splitting a model over devices: sequence regions, wide expert groups, legal layouts, stages, and the choice."""
