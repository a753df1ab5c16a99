"""Compile every module for other systems with zig's headers: `python tools/cross.py`.

Proves that the sources translate and compile, with no warning of ours, and that the system has every function
they call; nothing is run.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parent.parent
EVERYWHERE = [
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
# Which core is compiled for which system; a system without one of its own takes `none`.
TARGETS = {target: "linux" for target in LINUX} | {
    target: "darwin" if target.endswith("macos") else "bsd" for target in OTHER_UNIX
}


def translate(source: str, folder: Path) -> Path:
    """C from Cython, under the module name that setup.py gives it."""
    stem = Path(source).stem
    is_core = source.startswith("tuntap/_os/")
    module = "tuntap._os.native" if is_core else source.removesuffix(".pyx").replace("/", ".")
    target = folder / f"{stem}.c"
    command = [sys.executable, "-m", "cython", "-3", "--module-name", module, "-X", "cdivision=True"]
    subprocess.run([*command, "-o", target, ROOT / source], check=True, cwd=ROOT)
    return target


def python_headers(folder: Path, target: str) -> list[str]:
    """Include flags; this Python's pyconfig.h stands in for the target's, both being LP64."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    multiarch = folder / target / f"{target}/{version}"  # where Debian's wrapper looks for it
    multiarch.mkdir(parents=True, exist_ok=True)
    shutil.copy(sysconfig.get_config_h_filename(), multiarch / "pyconfig.h")
    return [f"-I{ROOT / 'tuntap/_kernels'}", f"-I{folder / target}", f"-I{sysconfig.get_paths()['include']}"]


def compile_for(target: str, source: Path, folder: Path) -> bool:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-c", "-O0", "-fPIC"]
    command.append("-fno-sanitize=undefined")  # which zig adds by itself
    command += ["-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE=1"]
    if target.endswith("openbsd"):
        command.append("-D_BSD_SOURCE=1")  # its pyconfig.h hides nothing of the system
    # What Cython and Python.h bring along is not ours.
    command += ["-Wno-unused-function", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
    command += ["-Wno-cast-function-type", "-Wno-deprecated-declarations", "-Wno-unreachable-code"]
    command += python_headers(folder, target)
    done = subprocess.run(
        [*command, "-o", folder / f"{source.stem}.{target}.o", source], capture_output=True, text=True
    )
    print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {target:18} {source.stem}", flush=True)
    if done.returncode:
        print(done.stderr[:4000])
    return done.returncode == 0


def symbols(obj: Path) -> set[str]:
    """What an ELF object leaves to others."""
    with obj.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {entry.name for entry in table.iter_symbols() if entry["st_shndx"] == "SHN_UNDEF"} - {""}


def link_for(target: str, folder: Path) -> bool:
    """Whether what the objects leave to others is in the system's own libraries, or is Python's."""
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
    print(f"{'ok  ' if is_right else 'FAIL'} {target:18} {len(objects)} objects linked", flush=True)
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
        jobs = [(target, source) for target, core in TARGETS.items() for source in [*sources, cores[core]]]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(lambda job: compile_for(*job, folder), jobs))
            linked = list(pool.map(lambda target: link_for(target, folder), TARGETS))
    print(f"{sum(results)} of {len(results)} compiled, {sum(linked)} of {len(linked)} linked; none was run")
    return 0 if all(results + linked) else 1


if __name__ == "__main__":
    sys.exit(main())
