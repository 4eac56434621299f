"""`python -m infra.cli` is `streamrec`, also where the package is not installed."""

import sys

from infra.cli.entry import main

sys.exit(main())
