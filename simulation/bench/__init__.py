"""Benchmarks: ours against a baseline in turn, in one run."""
