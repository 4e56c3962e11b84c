"""What only a CUDA device can show; skipped, and said so, where there is none."""
