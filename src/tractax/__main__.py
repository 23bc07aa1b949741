"""`python -m tractax`."""

from .cli import main

main()
