"""The command `streamrec`: one module a verb, each imported only when it is called, so that the command starts at once."""

from infra.cli.entry import main

__all__ = ["main"]
