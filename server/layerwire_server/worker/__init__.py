"""The worker process: torch on one device, fed through lanes. It never imports the gateway."""
