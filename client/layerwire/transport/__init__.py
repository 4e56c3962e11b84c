"""From requests to a server and back: sessions, the engine, connections, retries, settings."""
