"""``python -m cl_platform`` is ``clp``."""

import sys

from cl_platform.cli.app import main

if __name__ == "__main__":
    if not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))  # what is installed comes before the working folder
    main()
