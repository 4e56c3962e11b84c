"""Faults injected for real: processes killed, devices that break, hang and lie, under load."""
