"""Stored tensors and programs, and their copies on the device."""
