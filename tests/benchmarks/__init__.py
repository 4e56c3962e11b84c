"""Benchmarks: two sides in one run, interleaved, medians of rounds. `python -m tests.benchmarks --help`."""
