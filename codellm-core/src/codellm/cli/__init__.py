"""The command line: `main` turns exceptions into messages and exit codes, and nothing else does."""

from codellm.cli.root import main

__all__ = ["main"]
