"""Compile every module for other systems with zig's headers: `python tools/cross.py`.

Proves that the sources translate and compile, with no warning of ours, and that the system has every function
they call; nothing is run.
"""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pefile
from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parent.parent
EVERYWHERE = [
    "tuntap/_capture.pyx",
    "tuntap/_columns.pyx",
    "tuntap/_core.pyx",
    "tuntap/_offload.pyx",
    "tuntap/_records.pyx",
    "tuntap/_turns.pyx",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "tuntap/_kernels").glob("*.pyx"))),
]
LINUX = [f"{cpu}-linux-{libc}" for cpu in ("x86_64", "aarch64") for libc in ("gnu", "musl")]
OTHER_UNIX = [
    f"{cpu}-{system}" for cpu in ("x86_64", "aarch64") for system in ("macos", "freebsd", "netbsd", "openbsd")
]
# CPUs by the names that zig's compiler and its dlltool have for them.
WINDOWS = {
    "x86_64-windows-gnu": "i386:x86-64",
    "aarch64-windows-gnu": "arm64",
    "x86-windows-gnu": "i386",
}
# Which core is compiled for which system; a system without one of its own takes `none`.
TARGETS = {
    **dict.fromkeys(LINUX, "linux"),
    **{target: "darwin" if target.endswith("macos") else "bsd" for target in OTHER_UNIX},
    **dict.fromkeys(WINDOWS, "windows"),
}

# All but those about what Cython and Python.h bring along, which is not ours.
WARNINGS = [
    "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter",
    "-Wno-missing-field-initializers", "-Wno-cast-function-type", "-Wno-deprecated-declarations",
    "-Wno-unreachable-code",
]  # fmt: skip


@functools.cache
def of_setup(name: str) -> Any:  # noqa: ANN401 - whatever it is
    """A constant of setup.py."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"setup.py has no {name}")


def translate(source: str, folder: Path) -> Path:
    """C from Cython, as setup.py has it made for a release."""
    stem = Path(source).stem
    is_core = source.startswith("tuntap/_os/")
    module = "tuntap._os.native" if is_core else source.removesuffix(".pyx").replace("/", ".")
    target = folder / f"{stem}.c"
    command = [sys.executable, "-m", "cython", "--module-name", module]
    for directive, value in {**of_setup("DIRECTIVES"), "boundscheck": False}.items():
        command += ["-X", f"{directive}={value}"]
    subprocess.run([*command, "-o", target, ROOT / source], check=True, cwd=ROOT)
    return target


def python_headers(folder: Path, target: str) -> list[str]:
    """Include flags; this Python's pyconfig.h stands in for that of another Unix, both being LP64."""
    kernels = f"-I{ROOT / 'tuntap/_kernels'}"
    if target in WINDOWS:
        return [kernels, f"-I{folder / 'windows'}"]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    multiarch = folder / target / f"{target}/{version}"  # where Debian's wrapper looks for it
    multiarch.mkdir(parents=True, exist_ok=True)
    shutil.copy(sysconfig.get_config_h_filename(), multiarch / "pyconfig.h")
    return [kernels, f"-I{folder / target}", f"-I{sysconfig.get_paths()['include']}"]


def windows_headers(include: Path, folder: Path) -> Path:
    """The headers of a Python of this machine, as they would be on Windows."""
    shutil.copytree(include, folder)
    shutil.copy(ROOT / "tools/windows/pyconfig.h", folder / "pyconfig.h")
    return folder


def import_library(target: str, dll: str, names: set[str], library: Path) -> Path:
    """What a linker for Windows needs to know of a DLL."""
    definitions = library.with_suffix(".def")
    definitions.write_text("\n".join([f"LIBRARY {dll}", "EXPORTS", *sorted(names)]) + "\n")
    command = [sys.executable, "-m", "ziglang", "dlltool", "-m", WINDOWS[target]]
    subprocess.run([*command, "-d", definitions, "-l", library], check=True)
    return library


def compile_for(target: str, source: Path, folder: Path) -> bool:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-c", "-O0"]
    command.append("-fno-sanitize=undefined")  # which zig adds by itself
    if target not in WINDOWS:
        command.append("-fPIC")
    command += [*WARNINGS, "-D_GNU_SOURCE=1"]
    if target.endswith("openbsd"):
        command.append("-D_BSD_SOURCE=1")  # its pyconfig.h hides nothing of the system
    command += python_headers(folder, target)
    done = subprocess.run(
        [*command, "-o", folder / f"{source.stem}.{target}.o", source], capture_output=True, text=True
    )
    print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {target:19} {source.stem}", flush=True)
    if done.returncode:
        print(done.stderr[:4000])
    return done.returncode == 0


def symbols(obj: Path) -> set[str]:
    """What an ELF object leaves to others."""
    with obj.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {entry.name for entry in table.iter_symbols() if entry["st_shndx"] == "SHN_UNDEF"} - {""}


def link_for_windows(target: str, folder: Path) -> bool:
    """Whether what the objects leave to others is in the libraries that setup.py names, or is Python's."""
    objects = sorted(folder.glob(f"*.{target}.o"))
    headers = "".join(path.read_text() for path in (folder / "windows").rglob("*.h"))
    pythons = import_library(
        target, "python.dll", set(re.findall(r"\b_?Py\w+", headers)), folder / f"{target}.lib"
    )
    named = of_setup("LIBRARIES")["windows"]
    image = folder / f"{target}.dll"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-shared", "-o", image]
    done = subprocess.run(
        [*command, *objects, pythons, *(f"-l{name}" for name in named)], capture_output=True, text=True
    )
    problem = done.stderr[:4000]
    if done.returncode == 0:
        # This compiler has some libraries in reserve that Microsoft's does not look into.
        tables = pefile.PE(image, fast_load=True)
        tables.parse_data_directories(pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_IMPORT"])
        needed = {table.dll.decode().lower().removesuffix(".dll") for table in tables.DIRECTORY_ENTRY_IMPORT}
        needed = {name for name in needed if not name.startswith("api-ms-win-crt-")}
        differing = needed ^ {*named, "kernel32", "python"}
        problem = f"setup.py names {named}, and needed is {sorted(needed)}" if differing else ""
    print(f"{'FAIL' if problem else 'ok  '} {target:19} {len(objects)} objects linked", flush=True)
    if problem:
        print(problem)
    return not problem


def link_for(target: str, folder: Path) -> bool:
    """Whether what the objects leave to others is in the system's own libraries, or is Python's."""
    if target in WINDOWS:
        return link_for_windows(target, folder)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-shared"]
    objects = sorted(folder.glob(f"*.{target}.o"))
    if target.endswith("macos"):
        done = subprocess.run(
            [*command, "-o", folder / f"{target}.so", *objects], capture_output=True, text=True
        )
        wanted = {name.removeprefix("_") for name in re.findall(r"undefined symbol: (\S+)", done.stderr)}
        missing = {name for name in wanted if not name.startswith(("Py", "_Py"))}
    else:
        # This linker stops after twenty: give it what is Python's.
        wanted = set().union(*map(symbols, objects))
        stub = folder / f"{target}.python.c"
        stub.write_text("".join(f"char {name}[1];\n" for name in wanted if name.startswith(("Py", "_Py"))))
        command += ["-Wl,-z,defs", "-o", folder / f"{target}.so", stub, *objects]
        done = subprocess.run(command, capture_output=True, text=True)
        missing = set(re.findall(r"undefined symbol: (\S+)", done.stderr))
        missing |= {done.stderr[:2000]} if done.returncode and not missing else set()
    is_right = "PyModule_GetDict" in wanted and not missing
    print(f"{'ok  ' if is_right else 'FAIL'} {target:19} {len(objects)} objects linked", flush=True)
    if not is_right:
        print("\n".join(sorted(missing)) or done.stderr[:4000])
    return is_right


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = [translate(source, folder) for source in EVERYWHERE]
        cores = {
            path.stem: translate(f"tuntap/_os/{path.name}", folder)
            for path in sorted((ROOT / "tuntap/_os").glob("*.pyx"))
        }
        windows_headers(Path(sysconfig.get_paths()["include"]), folder / "windows")
        jobs = [(target, source) for target, core in TARGETS.items() for source in [*sources, cores[core]]]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(lambda job: compile_for(*job, folder), jobs))
            linked = list(pool.map(lambda target: link_for(target, folder), TARGETS))
    print(f"{sum(results)} of {len(results)} compiled, {sum(linked)} of {len(linked)} linked; none was run")
    return 0 if all(results + linked) else 1


if __name__ == "__main__":
    sys.exit(main())
