"""`python -m valkyr.runner` is `valkyr runner`."""

import sys

from valkyr.cli.main import main

if __name__ == "__main__":
    sys.argv[1:1] = ["runner"]
    main()
