"""Programs: networks as data. graph (what it says), check (what it gives), fold, program (the value that runs)."""
