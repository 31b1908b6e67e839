"""`python -m movepages`."""

import sys

from movepages.cli import main

sys.exit(main())
