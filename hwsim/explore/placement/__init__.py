"""Placements of models: prices operators and tensors, lets a placement mapper decide, checks and describes it."""
