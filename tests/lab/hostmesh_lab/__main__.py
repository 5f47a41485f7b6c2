"""Lets a clone without a virtual environment run the lab: ``python3 -m hostmesh_lab``."""

import sys

from hostmesh_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
