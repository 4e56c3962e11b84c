"""`python -m layerwire.cli` is `layerwire`."""

from layerwire.cli import main

main(prog_name="layerwire")
