"""The command line: one function per command; what it does is in the rooms below."""

from ablate.cli.app import main

__all__ = ["main"]
