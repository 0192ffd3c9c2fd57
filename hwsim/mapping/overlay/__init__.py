"""Overlays of an FPGA: how its multiplier slices and memory are built into chains, tiles and buffers."""
