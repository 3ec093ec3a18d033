"""``python -m kcompile``, for where the command is not on the path."""

from kcompile.cli import main

main()
