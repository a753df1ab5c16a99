"""``python -m tuntap``."""

import sys

from tuntap.cli import main

if __name__ == "__main__":
    sys.exit(main())
