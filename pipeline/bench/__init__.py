"""Benchmarks: `cuescope bench ...`."""
