"""Benchmarks: two sides in one run, interleaved, medians of rounds. `python -m tools.benchmarks --help`."""
