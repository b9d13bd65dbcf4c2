"""Serving handlers."""
