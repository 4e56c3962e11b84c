"""Client processes: who calls when, and what is noted of each call."""
