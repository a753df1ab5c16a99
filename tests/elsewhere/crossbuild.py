"""Builds the package with the core of another system, from that system's headers, to run on this Linux.

The processor and its calling convention are the same, so an object file for FreeBSD links into an extension
module here.  Every function of the other system's C library that it calls becomes a stub that asks a
callback (fake_kernel.py) for the result and errno; a function that nobody knows fails the build, so that
nothing reaches the C library of this machine by accident.  Objects for macOS are no ELF: those are compiled
to LLVM's intermediate code with the headers of macOS, and from there for Linux.
"""

import contextlib
import ctypes
import errno
import hashlib
import importlib.metadata
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

import fake_kernel

import tuntap

ROOT = Path(__file__).resolve().parents[2]
HOST = "x86_64-linux-gnu"
DEFINES = ["-D_GNU_SOURCE=1", "-D_BSD_SOURCE=1"]

# What each system calls the function that tells where errno is.
ERRNO_LOCATION = {"freebsd": "__error", "macos": "__error", "netbsd": "__errno", "openbsd": "__errno"}

# Functions that a core looks up by name (dlsym), and that the kernel answers like those it calls.
BY_NAME = {"macos": ["recvmsg_x", "sendmsg_x"]}

# Functions that touch nothing but memory: those of this machine do.
PURE = {
    "__memcpy_chk", "__memset_chk", "__strncpy_chk", "bcmp", "malloc", "memchr", "memcmp", "memcpy",
     "memmove", "memset", "realloc", "snprintf", "strchr", "strcmp", "strcspn", "strlen", "strncmp",
    "strncpy", "strnlen", "strspn", "strstr", "strtol", "strtoul",
}  # fmt: skip

# Functions that this machine's C library may not have.
EXTRA = {
    "strlcpy": """
unsigned long strlcpy(char *to, const char *from, unsigned long size) {
    unsigned long i = 0;
    for (; i + 1 < size && from[i]; i++) to[i] = from[i];
    if (size) to[i] = 0;
    while (from[i]) i++;
    return i;
}
"""
}

RECORDER = """
typedef long (*Callback)(int call, const long *arguments, int *error);
__attribute__((visibility("default"))) Callback recorder_callback;
#pragma GCC visibility push(hidden)
static _Thread_local int error;

int *error_location(void) __asm__("{location}");
int *error_location(void) {{ return &error; }}
{extra}
/* Integers and pointers come in registers, whether a function says "..." or not. */
#define RECORD(number, name) \\
    long call_##number(long, long, long, long, long, long) __asm__(name); \\
    long call_##number(long a, long b, long c, long d, long e, long f) {{ \\
        long arguments[6] = {{a, b, c, d, e, f}}; \\
        return recorder_callback(number, arguments, &error); \\
    }}
{calls}
#pragma GCC visibility pop
{by_name}
"""


class Unavailable(Exception):
    """Nothing can be built here, for a reason that is no fault of the sources."""


def check():
    """What the tests need; ziglang is the compiler, and brings the headers of every system."""
    if sys.platform != "linux" or os.uname().machine != "x86_64" or sys.maxsize < 2**32:
        raise Unavailable("cores of other systems run on x86-64 Linux alone")
    if not (ROOT / "tools/cross.py").exists() or not (ROOT / "tuntap/_os").is_dir():
        raise Unavailable("needs the source tree, which is not beside the tests")
    for module in ("ziglang", "Cython", "elftools"):
        if importlib.util.find_spec(module) is None:
            raise Unavailable(f"needs {module}: python -m pip install --group cross")


def cross():
    """tools/cross.py, which translates and knows which core is compiled for which system."""
    with added_to_path(ROOT / "tools"):
        return importlib.import_module("cross")


@contextlib.contextmanager
def added_to_path(folder):
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def zig(*arguments):
    command = [sys.executable, "-m", "ziglang", "cc", "-g0", "-fno-sanitize=all", *map(str, arguments)]
    # A sanitizer of ours is not to be loaded into the compiler.
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[:4000]}")


def sources_of(path, found=None):
    """A Cython source and the declarations that it imports, and those that they import."""
    found = {path} if found is None else found
    nearby = re.findall(r"^(?:from|cimport) (tuntap[\w.]*)", path.read_text(), re.MULTILINE)
    for declarations in [
        path.with_suffix(".pxd"),
        *(ROOT / f"{name.replace('.', '/')}.pxd" for name in nearby),
    ]:
        if declarations.exists() and declarations not in found:
            found.add(declarations)
            sources_of(declarations, found)
    return found


def translate(source, cache):
    """C from Cython, kept until a source changes."""
    digest = hashlib.sha256(f"{sys.version}{importlib.metadata.version('Cython')}{ROOT}".encode())
    for path in [ROOT / "tools/cross.py", *sorted(sources_of(ROOT / source))]:
        digest.update(path.read_bytes())
    target = cache / digest.hexdigest()[:16]
    name = f"{Path(source).stem}.c"
    if not (target / name).exists():
        made = cache / f"{target.name}.{os.getpid()}"
        made.mkdir(parents=True)
        cross().translate(source, made)
        try:
            made.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(made)
    return target / name


def compile_for(system, source, target, *flags):
    """An object file for this machine, from C that saw the headers of another system.

    What a function leaves of its variables without a value is not zero by luck.
    """
    flags = ["-c", "-O1", "-fPIC", "-ftrivial-auto-var-init=pattern", *flags]
    if system != "macos":
        zig("-target", f"x86_64-{system}", *flags, "-o", target, source)
        return
    code = target.with_suffix(".ll")
    flags += ["-S", "-emit-llvm", "-Wno-unused-command-line-argument"]
    zig("-target", "x86_64-macos", *flags, "-o", code, source)
    text = code.read_text()
    text = text.replace('target datalayout = "e-m:o-', 'target datalayout = "e-m:e-')
    text = re.sub("(?m)^target triple = .*$", 'target triple = "x86_64-unknown-linux-gnu"', text)
    # Names of Mach-O have an underscore in front, and \01 says that it is written out.
    code.write_text(text.replace(r'@"\01_', '@"'))
    zig("-target", HOST, "-c", "-fPIC", "-Wno-override-module", "-o", target, code)


def python_headers(folder):
    """Include flags; this Python's pyconfig.h stands in for the other system's, both being LP64."""
    include = Path(sysconfig.get_paths()["include"])
    config = Path(sysconfig.get_config_h_filename())
    # Debian's is in a folder of its own, and what lies here leads there on Linux alone.
    own = (
        config.parent.parent
        / (sysconfig.get_config_var("MULTIARCH") or "")
        / config.parent.name
        / config.name
    )
    headers = folder / "include"
    shutil.copytree(include, headers)
    shutil.copy(own if own.exists() else config, headers / config.name)
    return [f"-I{ROOT / 'tuntap/_kernels'}", f"-I{headers}"]


def values(system, headers, names, folder, optional=False):
    """What C expressions are on another system, as its compiler sees them: {expression: value}.

    Macros that are optional are left out where they are not defined.
    """
    entries = [f'{{"{name}", (unsigned long) ({name})}},' for name in names]
    if optional:
        entries = [f"#ifdef {name}\n{entry}\n#endif" for name, entry in zip(names, entries, strict=True)]
    lines = [f"#include <{header}>" for header in ("stddef.h", *headers)]
    lines += ["const struct {const char *name; unsigned long value;} facts[] = {", *entries, "{0, 0}};"]
    text = "\n".join(lines) + "\n"
    stem = f"facts-{system}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    library = folder / f"{stem}.so"
    if not library.exists():
        source = folder / f"{stem}.c"
        source.write_text(text)
        compile_for(system, source, folder / f"{stem}.o")
        zig("-target", HOST, "-shared", "-o", library, folder / f"{stem}.o")

    class Fact(ctypes.Structure):
        _fields_ = [("name", ctypes.c_char_p), ("value", ctypes.c_ulong)]

    facts = (Fact * (len(names) + 1)).in_dll(ctypes.CDLL(str(library)), "facts")
    return {fact.name.decode(): fact.value for fact in itertools.takewhile(lambda fact: fact.name, facts)}


def errors(system, folder):
    """Numbers of the errors there, by name."""
    return values(system, ["errno.h"], [name for name in dir(errno) if name[0] == "E"], folder, optional=True)


def build(system, known, folder, cache):
    """The package in `folder` with the core of a system; the names of the calls that it may make, in order.

    `known` are the functions that the callback answers, without what a system puts around the name
    (__socket30, fstat$INODE64).
    """
    tools = cross()
    package = folder / "tuntap"
    shutil.copytree(
        Path(tuntap.__file__).parent, package, ignore=shutil.ignore_patterns("native.*.so", "__pycache__")
    )
    numbers = "".join(
        f"#undef {name}\n#define {name} {number}\n" for name, number in errors(system, folder).items()
    )
    (folder / "errors.h").write_text(f"#include <errno.h>\n{numbers}")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")

    # The joint compares the errors of the core with numbers, which are the other system's.
    headers = python_headers(folder)
    for module in ("_core", "_offload", "_records", "_turns"):
        source = translate(f"tuntap/{module}.pyx", cache)
        zig(
            "-target", HOST, "-shared", "-fPIC", "-O0", "-D_GNU_SOURCE=1", "-include", folder / "errors.h",
            *headers, "-o", package / f"{module}{suffix}", source,
        )  # fmt: skip

    target = f"x86_64-{system}"
    core = translate(f"tuntap/_os/{tools.TARGETS[target]}.pyx", cache)
    # What was not set is nothing that a test could take for zeros.
    compile_for(system, core, folder / "core.o", *DEFINES, *headers, "-ftrivial-auto-var-init=pattern")
    wanted = {name for name in tools.symbols(folder / "core.o") if not re.match("_?Py", name)}
    wanted -= {ERRNO_LOCATION[system], *PURE, *EXTRA}
    calls = sorted(wanted)
    strangers = [name for name in calls if plain(name) not in known]
    if strangers:
        raise RuntimeError(f"the core for {system} calls what no kernel answers here: {', '.join(strangers)}")
    names = [*calls, *BY_NAME.get(system, ())]
    records = [f'RECORD({number}, "{name}")' for number, name in enumerate(names)]
    source = folder / "recorder.c"
    source.write_text(
        RECORDER.format(
            location=ERRNO_LOCATION[system],
            extra="".join(EXTRA.values()),
            calls="\n".join(records[: len(calls)]),
            by_name="\n".join(records[len(calls) :]),
        )
    )
    zig("-target", HOST, "-c", "-O1", "-fPIC", "-fno-builtin", "-o", folder / "recorder.o", source)
    native = package / f"_os/native{suffix}"
    zig("-target", HOST, "-shared", "-o", native, folder / "core.o", folder / "recorder.o")
    return native, [plain(name) for name in names]


def plain(name):
    """A function's name in the manual, from that of its symbol."""
    return re.sub(r"^__(\w+?)\d+$|^([a-z_0-9]+)\$.*$", lambda match: match[1] or match[2], name)


class Elsewhere:
    """One system: its kernel, and the package `tuntap` built for it, beside the one imported already."""

    def __init__(self, system, kernel, folder, cache):
        self.folder = folder
        self.modules = {}
        native, names = build(system, fake_kernel.SIGNATURES, folder, cache)
        numbers = values(system, fake_kernel.HEADERS, fake_kernel.NAMES, folder)
        self.kernel = kernel(numbers, errors(system, folder))
        self.callback = self.kernel.callback(names)  # kept for as long as the module may call it
        pointer = ctypes.cast(self.callback, ctypes.c_void_p)
        self.library = ctypes.CDLL(str(native))
        ctypes.c_void_p.in_dll(self.library, "recorder_callback").value = pointer.value
        self.kernel.by_name = {
            name: ctypes.cast(getattr(self.library, name), ctypes.c_void_p).value
            for name in BY_NAME.get(system, ())
        }

    @contextlib.contextmanager
    def running(self):
        """The kernel as after boot, with the package as `kernel.tuntap`; at the end nothing may be left."""
        kernel = self.kernel
        kernel.reset()
        with self.imported() as kernel.tuntap:
            yield kernel
        assert not kernel.failures, kernel.failures
        assert not kernel.devices, "a device was left open"
        assert not kernel.sockets, "a socket was left open"
        assert not kernel.lists, "a list was not freed"

    @contextlib.contextmanager
    def imported(self):
        """`import tuntap` means this one, here and in whatever it imports later."""
        others = {name: sys.modules.pop(name) for name in list(sys.modules) if is_ours(name)}
        sys.modules.update(self.modules)
        try:
            with added_to_path(self.folder):
                with self.errno():
                    importlib.import_module("tuntap.testing")
                yield sys.modules["tuntap"]
        finally:
            self.modules = {name: sys.modules.pop(name) for name in list(sys.modules) if is_ours(name)}
            sys.modules.update(others)

    @contextlib.contextmanager
    def errno(self):
        """`import errno` means the numbers of this system, as it does in a Python for it."""
        ours = sys.modules["errno"]
        sys.modules["errno"] = types.ModuleType("errno")
        vars(sys.modules["errno"]).update(self.kernel.errors)
        try:
            yield
        finally:
            sys.modules["errno"] = ours


def is_ours(name):
    return name == "tuntap" or name.startswith("tuntap.")
