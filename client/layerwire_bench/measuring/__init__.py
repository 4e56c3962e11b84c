"""From notes to points: windows, percentiles, verdicts, the next rate, ratios."""
