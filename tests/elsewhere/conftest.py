"""The package on the core of another system, whose calls a kernel written in Python answers."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import crossbuild


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory, pytestconfig):
    """A function that builds the package of a system once: `elsewhere("freebsd", Kernel).running()`."""
    try:
        crossbuild.check()
    except crossbuild.Unavailable as reason:
        pytest.skip(str(reason))
    found = {}

    def get(system, kernel):
        if (system, kernel) not in found:
            folder = tmp_path_factory.mktemp(system)
            cache = pytestconfig.cache.mkdir("elsewhere")
            found[system, kernel] = crossbuild.Elsewhere(system, kernel, folder, cache)
        return found[system, kernel]

    return get
