"""``python -m fastcore``: the command line."""

import sys

from fastcore.command.cli import main

sys.exit(main())
