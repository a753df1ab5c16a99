"""Tests of the package on Windows; under Wine test_wine.py runs them."""

import sys

if sys.platform != "win32":
    collect_ignore_glob = ["test_*.py"]
