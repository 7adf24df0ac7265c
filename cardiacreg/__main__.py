"""``python -m cardiacreg`` is the command line."""

from cardiacreg.cli import main

main(prog_name="cardiacreg")
