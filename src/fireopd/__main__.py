"""`python -m fireopd` is `fireopd`."""

from fireopd.cli import main

main()
