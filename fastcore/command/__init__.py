"""The command ``fastcore``."""
