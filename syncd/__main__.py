"""`python -m syncd` is `syncd`."""

from syncd.cli import main

main()
