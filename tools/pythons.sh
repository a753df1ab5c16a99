#!/bin/bash
# The suite on every CPython of this machine: those of pyenv and those on PATH, free-threaded ones too.
#
#   tools/pythons.sh [pytest arguments]
#
# Without arguments the whole suite runs.  PYTHONS="path ..." names the interpreters instead.  Each gets
# a virtual environment with the package installed, and runs a copy of the tests away from its sources.
# A free-threaded one then runs those that share nothing in four threads at once.
# Those left out, too old or of the same minor version as one before, are named; one that cannot build
# or pass fails the run.
set -uo pipefail
[ $# -gt 0 ] || set -- tests

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for part in tests docs examples bench README.md CHANGELOG.md LICENSE pyproject.toml; do
  [ ! -e "$root/$part" ] || cp -r "$root/$part" "$work"
done
find "$work" \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -r {} +

candidates() {
  if [ -n "${PYTHONS:-}" ]; then
    printf '%s\n' $PYTHONS
    return
  fi
  ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python 2>/dev/null
  local folder
  tr : '\n' <<<"$PATH" | while read -r folder; do
    case $folder in */shims) continue ;; esac
    ls -d "$folder"/python3 "$folder"/python3.[0-9]* 2>/dev/null | grep -E '/python3(\.[0-9]+t?)?$'
  done
}

describe='
import platform, sys, sysconfig
free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
number = "%d%02d" % sys.version_info[:2]
print(sys.implementation.name, platform.python_version() + free, number, number + free)
'

try() {
  local python=$1 version=$2
  shift 2
  local venv=$work/venv-$version
  "$python" -m venv "$venv" || return
  "$venv/bin/python" -m pip install --quiet --upgrade pip || return
  # These as wheels only: the newest release may have none for this Python, an older one has.
  (cd "$root" && "$venv/bin/python" -m pip install --quiet --prefer-binary --only-binary numpy,hypothesis . --group test \
    'Cython>=3.3' 'setuptools>=77') || return
  local library
  for library in pyarrow pandas polars; do
    "$venv/bin/python" -m pip install --quiet --only-binary :all: "$library" ||
      echo "   no $library for this Python: its tests are skipped"
  done
  cd "$work" || return
  "$venv/bin/python" -c '
import sys, tuntap
enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
print("   tuntap of", tuntap.__path__[0].replace(sys.prefix, "VENV"), "- GIL", "enabled" if enabled else "disabled")
if enabled and sys.argv[1].endswith("t"):
    sys.exit("importing tuntap switched the GIL on")
' "$version" || return
  "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@" || return
  case $version in *t)
    "$venv/bin/python" -m pip install --quiet pytest-run-parallel || return
    "$venv/bin/python" -m pytest -q -p no:cacheprovider --parallel-threads=4 \
      tests/kernels tests/test_config.py tests/test_offload.py ;;
  esac
}

seen=" "
status=0
summary=""
while read -r python; do
  read -r kind version number minor <<<"$("$python" -c "$describe" 2>/dev/null)"
  if [ "${kind:-}" != cpython ]; then
    echo "== $python: no CPython that runs, left out"
    continue
  fi
  if [ "$number" -lt 311 ]; then
    echo "== $python: CPython $version is older than 3.11, left out"
    continue
  fi
  case $seen in *" $minor "*)
    echo "== $python: CPython $version, left out: another of its minor version has run"
    continue ;;
  esac
  seen="$seen$minor "
  echo "== $python: CPython $version"
  if (try "$python" "$version" "$@"); then
    summary="$summary$version passed"$'\n'
  else
    summary="$summary$version FAILED"$'\n'
    status=1
  fi
  rm -rf "$work/venv-$version"
done < <(candidates)

echo "== summary"
printf '%s' "${summary:-no CPython 3.11 or newer was found$'\n'}"
[ -n "$summary" ] || status=1
exit $status
