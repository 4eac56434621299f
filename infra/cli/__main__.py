"""`python -m infra.cli` is `streamrec`, also where the package is not installed."""

import sys

from infra.cli.main import main

sys.exit(main())
