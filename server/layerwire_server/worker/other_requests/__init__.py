"""What gateways ask of a worker besides calls."""
