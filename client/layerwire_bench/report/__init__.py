"""How a run is shown, a form a file."""
