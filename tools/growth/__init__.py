"""How speed changes as callers, bytes, lanes, parameters, processes grow: `python -m tools.growth --help`."""
