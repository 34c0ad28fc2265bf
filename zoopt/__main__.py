"""The command line, as ``python -m zoopt``."""

import sys

from zoopt.cli import main

sys.exit(main())
