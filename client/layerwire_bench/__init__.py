"""The load tester, `layerwire bench`: closed and open loops, sweeps, a search, comparisons, answers checked.

One process plans and shows; client processes call. `workload` says what is sent, `targets` where, `result` what was
found, `report` how that is shown.
"""
