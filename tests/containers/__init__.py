"""The container image and docker-compose.yml."""
