"""Managed-VPS service: patches, hardens, backs up, proves and rescues servers."""

VERSION = "0.1.0"
"""The same as in pyproject.toml; a clone runs without being installed, so it is said here too."""
