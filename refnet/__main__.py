"""``python -m refnet``."""

from refnet.cli import main

main()
