"""`python -m fireopd` is `fireopd`."""

from fireopd.cli.main import main

main()
