/* The process around _fuzz.pyx, for tools/fuzz.sh.  It is not instrumented: the fuzzer learns nothing here. */
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

PyMODINIT_FUNC PyInit_bpf(void);
PyMODINIT_FUNC PyInit_build(void);
PyMODINIT_FUNC PyInit_checksum(void);
PyMODINIT_FUNC PyInit_columns(void);
PyMODINIT_FUNC PyInit_gso(void);
PyMODINIT_FUNC PyInit_gro(void);
PyMODINIT_FUNC PyInit_rewrite(void);
PyMODINIT_FUNC PyInit_pcap(void);
PyMODINIT_FUNC PyInit__fuzz(void);
void fuzz_report(void);

/* RFC 1071 word by word. */
uint64_t slow_sum(const uint8_t *data, size_t size, uint64_t total)
{
    size_t i;
    total = (total >> 48) + (total >> 32 & 0xffff) + (total >> 16 & 0xffff) + (total & 0xffff);
    for (i = 0; i + 1 < size; i += 2)
        total += (uint64_t) data[i] << 8 | data[i + 1];
    if (size % 2)
        total += (uint64_t) data[size - 1] << 8;
    while (total >> 16)
        total = (total >> 16) + (total & 0xffff);
    return total;
}

/* The importer of linked modules does not look for one in a package in early releases of Python 3.11. */
static const char FINDER[] =
    "import sys\n"
    "from importlib.machinery import BuiltinImporter\n"
    "class Linked:\n"
    "    find_spec = staticmethod(lambda name, path=None, target=None: BuiltinImporter.find_spec(name))\n"
    "sys.meta_path.insert(0, Linked)\n";

/* Python is there for the import of the kernels' modules, which finds their functions, and only for that. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void) argc;
    (void) argv;
    PyImport_AppendInittab("tuntap._kernels.bpf", PyInit_bpf);
    PyImport_AppendInittab("tuntap._kernels.build", PyInit_build);
    PyImport_AppendInittab("tuntap._kernels.checksum", PyInit_checksum);
    PyImport_AppendInittab("tuntap._kernels.columns", PyInit_columns);
    PyImport_AppendInittab("tuntap._kernels.gso", PyInit_gso);
    PyImport_AppendInittab("tuntap._kernels.gro", PyInit_gro);
    PyImport_AppendInittab("tuntap._kernels.rewrite", PyInit_rewrite);
    PyImport_AppendInittab("tuntap._kernels.pcap", PyInit_pcap);
    PyImport_AppendInittab("_fuzz", PyInit__fuzz);
    Py_InitializeEx(0);
    if (PyRun_SimpleString(FINDER) < 0 || !PyImport_ImportModule("_fuzz")) {
        if (PyErr_Occurred())
            PyErr_Print();
        exit(1);
    }
    atexit(fuzz_report);
    return 0;
}
