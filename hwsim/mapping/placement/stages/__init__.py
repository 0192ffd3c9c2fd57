"""Contiguous stages as shortest paths over segments of the chain, exact for every objective."""
