"""Runs on one machine: the `clmm` command, and what it does around Flower's own."""
