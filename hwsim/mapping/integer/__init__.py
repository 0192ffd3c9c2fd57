"""Tilings by an integer program over three paths, one a dimension: the independent check of the join search."""
