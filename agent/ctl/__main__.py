"""``python -m agent.ctl`` is ``agentctl``."""

import sys

from agent.ctl.main import main

if __name__ == "__main__":
    sys.exit(main())
