"""Picks the OS core and compiles it, with the rest, against one contract (tuntap/_os/native.pxd)."""

import os
import sys
import sysconfig

from Cython.Build import cythonize
from setuptools import Extension, setup

CORES = {
    "linux": "linux",
    "darwin": "darwin",
    "freebsd": "bsd",
    "openbsd": "bsd",
    "netbsd": "bsd",
    "win32": "windows",
}
# What a core needs beside the C library.
LIBRARIES = {"windows": ["advapi32", "iphlpapi", "ole32", "setupapi", "ws2_32"]}
core = next((file for prefix, file in CORES.items() if sys.platform.startswith(prefix)), "none")

# TUNTAP_DEBUG=1 checks bounds and keeps symbols; TUNTAP_SANITIZE=address,undefined adds sanitizers.
debug = os.environ.get("TUNTAP_DEBUG") == "1"
sanitize = os.environ.get("TUNTAP_SANITIZE", "")
flags = ["-O1", "-g"] if debug else ["-O3", "-g0"]
if sanitize:
    # Python is built with -fwrapv, under which an overflow is not undefined and is not reported.
    flags += ["-fno-wrapv", f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    flags += ["-fno-sanitize-recover=undefined"]
if sysconfig.get_platform().startswith("win"):  # Microsoft's compiler; a MinGW takes the flags above
    # What is atomic elsewhere is volatile there (lock.pxd), which on Arm does not suffice unless asked for.
    flags = ["/Od", "/Z7"] if debug else ["/O2", "/volatile:ms"]

SOURCES = {
    "tuntap._capture": "tuntap/_capture.pyx",
    "tuntap._columns": "tuntap/_columns.pyx",
    "tuntap._core": "tuntap/_core.pyx",
    "tuntap._kernels.bpf": "tuntap/_kernels/bpf.pyx",
    "tuntap._kernels.build": "tuntap/_kernels/build.pyx",
    "tuntap._kernels.checksum": "tuntap/_kernels/checksum.pyx",
    "tuntap._kernels.columns": "tuntap/_kernels/columns.pyx",
    "tuntap._kernels.gro": "tuntap/_kernels/gro.pyx",
    "tuntap._kernels.gso": "tuntap/_kernels/gso.pyx",
    "tuntap._kernels.pcap": "tuntap/_kernels/pcap.pyx",
    "tuntap._kernels.rewrite": "tuntap/_kernels/rewrite.pyx",
    "tuntap._offload": "tuntap/_offload.pyx",
    "tuntap._os.native": f"tuntap/_os/{core}.pyx",
    "tuntap._records": "tuntap/_records.pyx",
    "tuntap._turns": "tuntap/_turns.pyx",
}

DIRECTIVES = {
    "language_level": 3,
    "embedsignature": True,
    "embedsignature.format": "python",
    "freethreading_compatible": True,
    "wraparound": False,
    "cdivision": True,
}

extensions = [
    Extension(
        name,
        [source],
        define_macros=[("_GNU_SOURCE", "1")],
        depends=["tuntap/_kernels/simd.h"],
        libraries=LIBRARIES.get(core, []) if name == "tuntap._os.native" else [],
        extra_compile_args=flags,
        extra_link_args=[f"-fsanitize={sanitize}"] if sanitize else [],
    )
    for name, source in SOURCES.items()
]

setup(
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        force=debug,
        compiler_directives={
            **DIRECTIVES,
            "boundscheck": debug,
            "initializedcheck": debug,
        },
    ),
)
