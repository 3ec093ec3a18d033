"""The command line: ``kcompile MODEL --target T -o OUT``, and commands to inspect, run, time and verify."""

from kcompile.cli.main import main

__all__ = ["main"]
