#!/bin/bash
# The tests and the fuzzer under AddressSanitizer and UndefinedBehaviorSanitizer (gcc, Linux).
#
#   tools/sanitize.sh [--python PYTHON] [--seconds N] [pytest arguments]
#
# Builds a copy of the tree in a temporary folder.  PYTHON (default: .venv/bin/python, else python3)
# is used as it is if it has what the tests need, else a virtual environment is made for it.  Without
# pytest arguments the tests of everything that touches packet bytes and threads run.  A report of a
# sanitizer fails the run.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=python3
[ -x "$root/.venv/bin/python" ] && python=$root/.venv/bin/python
seconds=60
while [ $# -gt 0 ]; do
  case $1 in
    --python) python=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || set -- tests/kernels tests/test_{batch,bpf,capture,columns,lifecycle,offload,packets,parallel,records,testing}.py

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$root"/{setup.py,pyproject.toml,README.md,CHANGELOG.md,LICENSE,tuntap,tests,bench,docs,examples} "$work"
find "$work" \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -r {} +
cd "$work"

if ! "$python" -c 'import Cython, setuptools, numpy, pytest, hypothesis, scapy' 2>/dev/null; then
  echo "== a virtual environment for $python"
  "$python" -m venv venv
  python=$work/venv/bin/python
  "$python" -m pip install --quiet --upgrade pip
  "$python" -m pip install --quiet 'setuptools>=77' 'Cython>=3.3' numpy --group test
fi

export TUNTAP_DEBUG=1 TUNTAP_SANITIZE=address,undefined PYTHONPATH=$work
echo "== building with -fsanitize=$TUNTAP_SANITIZE"
"$python" setup.py --quiet build_ext --inplace

# The sanitizer must be the first library of the process, and libstdc++ there when it starts.
# PYTHONMALLOC=malloc: each object is a block of its own, so that reading past one is seen.
libraries=""
for library in libasan.so libubsan.so libstdc++.so; do
  libraries="$libraries $(gcc -print-file-name=$library)"
done
sanitized() {
  env LD_PRELOAD="$libraries" PYTHONMALLOC=malloc PYTHONFAULTHANDLER=1 \
    ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1:allocator_may_return_null=1 \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 "$@"
}

status=0
here=$(sanitized "$python" -c 'import tuntap._core; print(tuntap._core.__file__)')
case $here in "$work"/*) ;; *) echo "the tests would import $here, not what was built"; exit 1 ;; esac
echo "== pytest $*"
# --capture=sys leaves descriptor 2 alone, where a sanitizer writes.
sanitized "$python" -m pytest -q -p no:cacheprovider --capture=sys "$@" 2>&1 | tee log || status=$?
echo "== tests/fuzz.py --seconds $seconds"
sanitized "$python" tests/fuzz.py --seconds "$seconds" 2>&1 | tee -a log || status=$?
if grep -qE 'ERROR: [A-Za-z]+Sanitizer|runtime error:' log; then
  echo "== a sanitizer reported the above"
  status=1
elif [ $status = 0 ]; then
  echo "== no sanitizer reported anything"
fi
exit $status
