"""The package on the core of another system, whose calls a kernel written in Python answers."""

import ctypes
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import crossbuild
from systems import SYSTEMS


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory, pytestconfig):
    """A function that builds the package of a system once; `elsewhere("freebsd").running()`."""
    try:
        crossbuild.check()
    except crossbuild.Unavailable as reason:
        pytest.skip(str(reason))
    found = {}
    broken = {}
    ctypes.CDLL(None).mallopt(-6, 0xAA)  # M_PERTURB: what malloc() yields is not zero by luck

    def get(system):
        if system in broken:
            pytest.fail(broken[system])
        if system not in found:
            cache = pytestconfig.cache.mkdir("elsewhere")
            try:
                folder = tmp_path_factory.mktemp(system)
                found[system] = crossbuild.Elsewhere(system, SYSTEMS[system], folder, cache)
            except RuntimeError as error:
                broken[system] = f"the package for {system} cannot be built: {error}"
                raise
        return found[system]

    return get
