"""``python -m agent.deploy`` is ``hostmesh-deploy``: a clone needs no installation."""

import sys

from agent.deploy.main import main

if __name__ == "__main__":
    sys.exit(main())
