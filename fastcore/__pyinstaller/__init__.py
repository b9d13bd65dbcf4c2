"""What PyInstaller asks of packages that have more than imports."""

import os

__all__ = ["hook_dirs"]


def hook_dirs() -> list[str]:
    """Tell where the hooks are; called by PyInstaller, which finds it by an entry point."""
    return [os.path.dirname(__file__)]
