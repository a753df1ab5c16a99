"""The house stands: dependencies point one way, and every OS core keeps the compiled contract."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tuntap

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tuntap"
IN_TREE = (PACKAGE / "_os" / "native.pxd").exists() and list(PACKAGE.glob("_os/*.pyx"))

pytestmark = pytest.mark.skipif(not IN_TREE, reason="needs the source tree, which is not beside the tests")

IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\b|c?import\s+([\w., \t]+))", re.MULTILINE)
STRINGS = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|#[^\n]*',
    re.DOTALL,
)


def code_of(path):
    """The text of a source without its comments and strings, lines kept."""
    return strip(path.read_text(encoding="utf-8"))


def strip(text):
    return STRINGS.sub(lambda match: '""' + "\n" * match.group().count("\n"), text)


def cython_imports(text):
    """Modules that a .pyx or .pxd imports or cimports."""
    found = set()
    for source, names in IMPORT.findall(strip(text)):
        found.update([source] if source else [name.split()[0] for name in names.split(",") if name.strip()])
    return found


def python_imports(text, package="tuntap"):
    """Modules that a .py imports, not for types alone; `from tuntap import x` counts as tuntap.x."""
    found = set()
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if not is_for_types(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, [package if node.level else "", node.module or ""]))
            if module == package:
                found.update(f"{package}.{alias.name}" for alias in node.names)
            else:
                found.add(module)
    return found


def is_for_types(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def within(module, *packages):
    return any(module == package or module.startswith(package + ".") for package in packages)


def sources(*patterns):
    found = [path for pattern in patterns for path in sorted(PACKAGE.glob(pattern))]
    assert found, patterns
    return found


def shown(path):
    return path.relative_to(ROOT).as_posix()


API = sources("*.py") if IN_TREE else []
COMMAND = sources("_cli/*.py") if IN_TREE else []
KERNELS = sources("_kernels/*.py", "_kernels/*.pyx", "_kernels/*.pxd") if IN_TREE else []
CORES = sources("_os/*.pyx") if IN_TREE else []
OS = [*CORES, *sources("_os/*.pxd", "_os/*.py")] if IN_TREE else []
JOINT = (
    sources(
        *(
            f"_{name}.p{kind}"
            for name in ("capture", "core", "offload", "records", "turns")
            for kind in ("yx", "xd")
        )
    )
    if IN_TREE
    else []
)


def loaded_by_users():
    """Modules of the API and whatever they load: all but the command and what it alone uses."""
    modules = {f"tuntap.{path.stem}": path for path in API}
    todo = ["tuntap.__init__", "tuntap._device", "tuntap.testing", "tuntap.offload", "tuntap.aio"]
    seen = {}
    while todo:
        module = todo.pop()
        if module in modules and module not in seen:
            seen[module] = modules[module]
            todo.extend(own_imports(modules[module]))
    return seen.items()


def own_imports(path):
    text = path.read_text(encoding="utf-8")
    found = python_imports(text) if path.suffix == ".py" else cython_imports(text)
    return {module for module in found if within(module, "tuntap")}


class TestTheScanner:
    """What the rules below rely on."""

    def test_sees_every_form_of_cython_import(self):
        text = """
cimport a.b
import c, d.e as f
from g.h cimport (
    i,
)
    from j import k          # indented
# from no cimport comment
x = "from no import string"
'''
from no import docstring
'''
from m.n cimport *
"""
        assert cython_imports(text) == {"a.b", "c", "d.e", "g.h", "j", "m.n"}

    def test_sees_every_form_of_python_import(self):
        text = (
            "import a.b\nfrom tuntap import _core\ndef f():\n    from . import _x\n    from ._y import z\n"
            "    from tuntap._os import w\n"
            "if TYPE_CHECKING:\n    from tuntap import _types\n"
        )
        assert python_imports(text) == {"a.b", "tuntap._core", "tuntap._x", "tuntap._y", "tuntap._os"}

    def test_finds_the_files_it_is_about(self):
        assert {"tuntap/_device.py", "tuntap/_batch.py", "tuntap/_errors.py"} <= {shown(p) for p in API}
        assert {"tuntap/_os/linux.pyx", "tuntap/_os/none.pyx"} <= {shown(p) for p in CORES}
        assert "tuntap/_kernels/checksum.pyx" in {shown(p) for p in KERNELS}


class TestDirection:
    @pytest.mark.parametrize("path", API, ids=shown)
    def test_the_api_reaches_the_lower_layers_through_the_joint_only(self, path):
        assert not {m for m in own_imports(path) if within(m, "tuntap._os", "tuntap._kernels")}

    @pytest.mark.parametrize("path", API, ids=shown)
    def test_only_the_command_uses_what_stands_behind_it(self, path):
        uses = any(within(m, "tuntap._cli") for m in own_imports(path))
        assert not uses or path.name in ("cli.py", "__main__.py")

    @pytest.mark.parametrize("path", COMMAND, ids=shown)
    def test_the_command_uses_what_its_users_use(self, path):
        assert not {m for m in own_imports(path) if within(m, "tuntap._os", "tuntap._kernels")}

    @pytest.mark.parametrize("path", JOINT, ids=shown)
    def test_the_joint_imports_the_contract_the_kernels_and_the_errors(self, path):
        allowed = (
            "tuntap._os.native",
            "tuntap._os.lock",
            "tuntap._kernels",
            "tuntap._errors",
            "tuntap._core",
            "tuntap._offload",
            "tuntap._records",
            "tuntap._trio",  # what _turns is for asyncio
        )
        assert not {m for m in own_imports(path) if not within(m, *allowed)}

    def test_the_joint_does_import_them(self):
        found = set().union(*map(own_imports, JOINT))
        assert "tuntap._os.native" in found
        assert any(within(module, "tuntap._kernels") for module in found)

    @pytest.mark.parametrize("path", OS, ids=shown)
    def test_os_imports_only_itself(self, path):
        assert not {m for m in own_imports(path) if not within(m, "tuntap._os")}

    @pytest.mark.parametrize("path", CORES, ids=shown)
    def test_a_core_does_not_import_another_core(self, path):
        others = {f"tuntap._os.{core.stem}" for core in CORES}
        assert not own_imports(path) & others

    @pytest.mark.parametrize("path", KERNELS, ids=shown)
    def test_kernels_import_only_kernels(self, path):
        assert not {m for m in own_imports(path) if not within(m, "tuntap._kernels")}

    def test_errors_import_nothing(self):
        assert python_imports((PACKAGE / "_errors.py").read_text(encoding="utf-8")) == set()

    def test_the_modules_of_the_api_have_no_cycle(self):
        graph = {
            f"tuntap.{path.stem}": {m for m in own_imports(path) if m != "tuntap"}
            for path in API
            if path.stem not in ("__init__", "__main__")
        }

        def visit(module, trail):
            assert module not in trail, f"cycle: {' -> '.join([*trail, module])}"
            for target in graph.get(module, ()):
                visit(target, [*trail, module])

        for module in graph:
            visit(module, [])


class TestRooms:
    """What belongs where."""

    @pytest.mark.parametrize("path", [*API, *JOINT, *KERNELS], ids=shown)
    def test_the_os_is_chosen_in_setup_alone(self, path):
        code = code_of(path)
        assert not re.search(r"\bsys\s*\.\s*platform\b|\bos\s*\.\s*name\b|\bUNAME_SYSNAME\b", code)
        assert not re.search(r"\bfrom\s+sys\s+import\b.*\bplatform\b", code)

    def test_no_question_about_the_platform_outside_the_command(self):
        """Its reports may name the system they ran on."""
        for module, path in loaded_by_users():
            assert "platform" not in python_imports(path.read_text(encoding="utf-8")), module

    @pytest.mark.parametrize("path", API, ids=shown)
    def test_no_ctypes(self, path):
        assert not {
            m
            for m in python_imports(path.read_text(encoding="utf-8"))
            if within(m, "ctypes", "cffi", "_ctypes")
        }

    def test_no_child_process_where_interfaces_are_configured(self):
        """What `import tuntap` and its public modules load; the command's demonstration may run ping."""
        for module, path in loaded_by_users():
            found = python_imports(path.read_text(encoding="utf-8"))
            assert not {m for m in found if within(m, "subprocess", "pty", "multiprocessing")}, module
            assert not re.search(
                r"\bos\s*\.\s*(system|popen|exec\w*|spawn\w*|posix_spawn\w*)\b", code_of(path)
            ), module

    def test_what_users_load_is_all_of_the_api(self):
        names = {module for module, _ in loaded_by_users()}
        assert {"tuntap._device", "tuntap._config", "tuntap._batch", "tuntap.testing"} <= names

    @pytest.mark.parametrize("path", [*JOINT, *KERNELS, *OS], ids=shown)
    def test_compiled_code_uses_neither_ctypes_nor_include(self, path):
        code = code_of(path)
        assert not {
            m for m in cython_imports(path.read_text(encoding="utf-8")) if within(m, "ctypes", "subprocess")
        }
        assert not re.search(r"^\s*include\s", code, re.MULTILINE)
        assert not re.search(r"\bsystem\s*\(|\bpopen\s*\(|\bexecv\w*\s*\(", code)

    @pytest.mark.parametrize("path", [*JOINT, *KERNELS], ids=shown)
    def test_os_headers_and_system_calls_stay_in_os(self, path):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            return
        cimports = re.findall(
            r"^\s*(?:from\s+([\w.]+)\s+cimport|cimport\s+([\w.]+))", strip(text), re.MULTILINE
        )
        portable = ("libc", "cpython", "cython", "tuntap")
        assert not {m for m in map("".join, cimports) if not within(m, *portable)}
        system = ("socket", "fcntl", "select", "selectors", "signal", "posix", "libc.signal")
        assert not {m for m in cython_imports(text) if within(m, *system)}
        headers = re.findall(r"cdef\s+extern\s+from\s+[\"'<]+([\w./]+)", text)
        assert not {h for h in headers if h not in ("stdint.h", "string.h", "stddef.h", "Python.h", "simd.h")}
        assert "#include" not in text
        calls = r"\b(ioctl|socket|open|read|write|readv|writev|poll|recvmsg|sendmsg|fcntl|close)\s*\("
        cython_only = re.sub(r"\b(self|os|\w+)\.\w+\s*\(|\b(def|cdef|cpdef)\b[^\n]*", "", code_of(path))
        assert not re.findall(calls, cython_only)

    @pytest.mark.parametrize("path", API, ids=shown)
    def test_python_makes_no_ioctl(self, path):
        found = python_imports(path.read_text(encoding="utf-8"))
        assert not {m for m in found if within(m, "fcntl", "termios", "mmap")}

    def test_every_pyx_has_its_pxd_and_the_cores_share_one(self):
        for path in PACKAGE.rglob("*.pyx"):
            header = path.with_suffix(".pxd")
            if path.parent.name == "_os":
                assert not header.exists(), f"{shown(header)}: the one contract is native.pxd"
                header = path.with_name("native.pxd")
            assert header.exists(), f"{shown(path)} has no {header.name}"

    def test_every_importable_extension_has_a_stub(self):
        assert (PACKAGE / "_core.pyi").exists()

    def test_only_the_joint_raises(self):
        for path in (*KERNELS, *OS):
            if path.suffix != ".py":
                assert not re.search(r"^\s*raise\b", code_of(path), re.MULTILINE), shown(path)

    def test_public_names_are_there_and_nothing_else_is_defined(self):
        assert all(hasattr(tuntap, name) for name in tuntap.__all__)
        tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
        assert not [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]


def translate(core, tree, target):
    """Translate an OS core against the contract of a source tree, as setup.py does."""
    pytest.importorskip("Cython", reason="the translator is not installed here")
    return subprocess.run(
        [
            sys.executable, "-m", "cython", "-3", "--module-name", "tuntap._os.native",
            str(core), "-o", str(target / "native.c"),
        ],
        cwd=tree, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    """A copy of the declarations, in which a core can be broken."""
    shutil.copytree(
        PACKAGE, tmp_path / "tuntap", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "*.c")
    )
    return tmp_path


class TestContract:
    @pytest.mark.parametrize("core", CORES, ids=lambda path: path.stem)
    def test_every_core_translates_on_any_host(self, core, tmp_path):
        result = translate(core, ROOT, tmp_path)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "native.c").stat().st_size > 10_000

    def test_a_core_that_lacks_a_function_is_refused(self, tree):
        path = tree / "tuntap" / "_os" / "none.pyx"
        text = path.read_text(encoding="utf-8")
        broken = text.replace("cdef int os_get_mac(", "cdef int os_fetch_mac(")
        assert broken != text
        path.write_text(broken, encoding="utf-8")
        result = translate(path, tree, tree)
        assert result.returncode != 0
        assert "os_get_mac" in result.stderr

    def test_a_core_that_differs_in_a_signature_is_refused(self, tree):
        path = tree / "tuntap" / "_os" / "none.pyx"
        text = path.read_text(encoding="utf-8")
        handle = "Handle *handle, "
        changes = {  # type of an argument, number of arguments, nogil, noexcept, type of the result
            f"os_set({handle}int setting, int64_t value)": f"os_set({handle}int setting, int value)",
            f"os_get({handle}int setting, int64_t *value)": f"os_get({handle}int setting)",
            f"os_get_name({handle}char *name) noexcept nogil": f"os_get_name({handle}char *name) noexcept",
            f"os_get_mac({handle}uint8_t *mac) noexcept": f"os_get_mac({handle}uint8_t *mac) except -1",
            "cdef int os_set_mac(": "cdef int64_t os_set_mac(",
        }
        for before, after in changes.items():
            assert text.count(before) == 1
            text = text.replace(before, after)
        path.write_text(text, encoding="utf-8")
        result = translate(path, tree, tree)
        assert result.returncode != 0
        for name in ("os_set", "os_get", "os_get_name", "os_get_mac", "os_set_mac"):
            assert re.search(rf"cdef \w+ {name}\(.*\n\s*\^", result.stderr), (
                f"{name} passed:\n{result.stderr}"
            )

    def test_every_function_of_the_contract_is_asked_for(self):
        """A function that nothing above the cores calls is no part of a contract."""
        contract = (PACKAGE / "_os" / "native.pxd").read_text(encoding="utf-8")
        names = re.findall(r"^cdef \w+ (os_\w+)\(", contract, re.MULTILINE)
        assert len(names) > 20
        joint = "".join(code_of(path) for path in JOINT)
        assert not [name for name in names if not re.search(rf"\b{name}\s*\(", joint)]
