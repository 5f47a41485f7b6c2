"""Makes the repository's root importable, for the helper beside the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
