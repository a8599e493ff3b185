"""`python -m ownlm`: the same as the `ownlm` command."""

import sys

from ownlm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
