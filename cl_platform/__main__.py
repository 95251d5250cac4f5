"""``python -m cl_platform`` is ``clp``."""

from cl_platform.cli.app import main

if __name__ == "__main__":
    main()
