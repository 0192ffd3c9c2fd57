"""Squares of cores on a wafer-scale mesh: one for every operator of a phase."""
