"""``python -m workers.cli`` is ``tympan``."""

import sys

from workers.cli import main

sys.exit(main())
