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
    broken = {}

    def get(system, kernel):
        key = system, kernel
        if key in broken:
            pytest.fail(broken[key])
        if key not in found:
            cache = pytestconfig.cache.mkdir("elsewhere")
            try:
                found[key] = crossbuild.Elsewhere(*key, tmp_path_factory.mktemp(system), cache)
            except RuntimeError as error:
                broken[key] = f"the package for {system} cannot be built: {error}"
                raise
        return found[key]

    return get
