#!/usr/bin/env bash
# Run a command as an ordinary user, on a copy of this checkout, in a mount namespace where that user
# may open /dev/net/tun: `tools/as-user.sh make test`.  For root.
set -euo pipefail
cd "$(dirname "$0")/.."

user=65534
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$copy"
chown -R "$user:$user" "$copy"

unshare --mount bash -s "$copy" "$user" "$@" <<'INNER'
set -euo pipefail
copy=$1 user=$2
shift 2
mkdir -p /dev/net
mount -t tmpfs none /dev/net
mknod -m 666 /dev/net/tun c 10 200
cd "$copy"
exec setpriv --reuid "$user" --regid "$user" --clear-groups --inh-caps=-all --no-new-privs \
  env -i HOME="$copy" PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LANG=C.UTF-8 CI="${CI:-}" "$@" </dev/null
INNER
