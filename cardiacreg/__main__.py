"""``python -m cardiacreg`` is the command line."""

from cardiacreg.cli.app import main

main(prog_name="cardiacreg")
