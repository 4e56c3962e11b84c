"""Modules of torch.nn made into programs and weights on the caller's side."""
