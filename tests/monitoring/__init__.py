"""Prometheus' configuration, rules and alerts, the dashboard, and the runbook: each through the closest real tool."""
