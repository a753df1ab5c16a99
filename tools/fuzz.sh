#!/bin/bash
# Coverage-guided fuzzing of the packet kernels with libFuzzer, under AddressSanitizer and UBSan (clang, Linux).
#
#   tools/fuzz.sh [--python PYTHON] [--seconds N] [--input HEX] [libFuzzer options]
#
# Builds the kernels and tests/kernels/_fuzz.pyx, from a copy in a temporary folder, into one program and
# runs it for N seconds (45).  An input that fails is printed in hex; with --input only that one is run.
# A run that did not reach what it is about (see `reached` in _fuzz.pyx) fails as well.  PYTHON (default:
# .venv/bin/python, else python3) needs Cython and tuntap, whose packets the fuzzer begins with.  The
# kernels are embedded into the same Python if it has a library for that, else into the system's.
# FUZZ_CORPUS names a folder that keeps what was found worth keeping, for the next run.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=python3
[ -x "$root/.venv/bin/python" ] && python=$root/.venv/bin/python
seconds=45
input=
while [ $# -gt 0 ]; do
  case $1 in
    --python) python=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --input) input=$2; shift 2 ;;
    *) break ;;
  esac
done
command -v clang >/dev/null || { echo "clang is not installed (Debian: clang libclang-rt-dev)"; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{tuntap/_kernels,seeds,found} "${FUZZ_CORPUS:=$work/corpus}"
FUZZ_CORPUS=$(realpath "$FUZZ_CORPUS")
cp "$root"/tuntap/_kernels/*.{py,pyx,pxd,h} "$work/tuntap/_kernels"
touch "$work/tuntap/__init__.py"
cp "$root"/tests/kernels/{_fuzz.pyx,fuzz_main.c} "$work"
"$python" "$root/tests/kernels/fuzz_seeds.py" "$work/seeds"
cd "$work"

# Where the headers of a Python are, its prefix, and how to link to it; nothing if it cannot be embedded.
embedding() {
  "$1" - <<'END'
import sys, sysconfig
from pathlib import Path

get = sysconfig.get_config_var
include = sysconfig.get_path("include")
libraries = [Path(get(folder) or "", get("LDLIBRARY")) for folder in ("LIBDIR", "LIBPL")]
library = next((path for path in libraries if path.is_file()), None)
if library and Path(include, "Python.h").exists():
    more = f"-Wl,-rpath,{library.parent}" if library.suffix == ".so" else f"{get('LIBS')} {get('SYSLIBS')}"
    print(f"{include}|{sys.base_prefix}|{library} {more}")
END
}
embedded=$(embedding "$python")
[ -n "$embedded" ] || embedded=$(embedding /usr/bin/python3 || true)
[ -n "$embedded" ] || { echo "no Python to embed (Debian: python3-dev)"; exit 1; }
IFS='|' read -r include prefix link <<<"$embedded"

echo "== building with $(clang --version | head -n 1)"
# As in setup.py.
directives=boundscheck=False,wraparound=False,initializedcheck=False,cdivision=True
"$python" -m cython -3 -X $directives tuntap/_kernels/*.pyx _fuzz.pyx
pids=
for source in tuntap/_kernels/*.c _fuzz.c; do
  clang -c -O1 -g -w -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
    -fno-sanitize-recover=undefined -I "$include" "$source" -o "${source%.c}.o" & pids="$pids $!"
done
clang -c -O2 -I "$include" fuzz_main.c
for pid in $pids; do wait "$pid"; done
# shellcheck disable=SC2086
clang -fsanitize=fuzzer,address,undefined tuntap/_kernels/*.o ./*.o $link -o fuzz

fuzz() {
  env PYTHONHOME="$prefix" PYTHONPATH="$work" \
    ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16:malloc_context_size=5 \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ./fuzz "$@"
}

if [ -n "$input" ]; then
  "$python" -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.argv[1]))' "$input" >input
  fuzz "$@" input
  exit
fi
echo "== fuzzing for $seconds seconds"
status=0
fuzz -max_total_time="$seconds" -max_len=2048 -timeout=10 -artifact_prefix=found/ \
  -print_final_stats=1 "$@" "$FUZZ_CORPUS" seeds >log 2>&1 || status=$?
for found in found/*; do
  [ -f "$found" ] || continue
  grep -v -E '^#[0-9]+|^INFO|^stat|^reached' log || true
  echo "== failed; to run it again:"
  echo "tools/fuzz.sh --input $(od -An -v -tx1 "$found" | tr -d ' \n')"
  exit 1
done
[ $status = 0 ] || { cat log; exit $status; }
grep -E '^(#.*DONE|stat::number|stat::average|reached:)' log
if grep -E '^reached: .* 0$' log || ! grep -q '^reached:' log; then
  echo "== the fuzzer did not reach all that it is about"
  exit 1
fi
