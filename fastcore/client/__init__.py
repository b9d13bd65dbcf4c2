"""Calling servers."""
