"""Put the signed wintun.dll of an architecture into the package, for a wheel: `python tools/wintun.py`.

It is the file of Wintun's own release, whose hash is checked, and goes beside its licence, which allows to
pass it on unchanged to whoever uses it through its documented interface.  None of it is committed, or
downloaded by the package.
"""

import argparse
import hashlib
import io
import sysconfig
import urllib.request
import zipfile
from pathlib import Path

RELEASE = "https://www.wintun.net/builds/wintun-0.14.1.zip"
SHA256 = "07c256185d6ee3652e09fa55c0b673e2624b565e02c4b9091c79ca7d2f24ef51"
ARCHITECTURES = {"win-amd64": "amd64", "win-arm64": "arm64", "win32": "x86"}
PACKAGE = Path(__file__).resolve().parent.parent / "tuntap"


def files(archive: bytes, architecture: str) -> dict[str, bytes]:
    """What goes into the package, by name; ValueError if this is not the release."""
    digest = hashlib.sha256(archive).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{RELEASE} has the SHA-256 {digest}, not {SHA256}")
    with zipfile.ZipFile(io.BytesIO(archive)) as release:
        return {
            "wintun.dll": release.read(f"wintun/bin/{architecture}/wintun.dll"),
            "wintun-LICENSE.txt": release.read("wintun/LICENSE.txt"),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--architecture",
        choices=sorted(ARCHITECTURES.values()),
        default=ARCHITECTURES.get(sysconfig.get_platform()),
        help="by default that of this Python",
    )
    parser.add_argument("--archive", type=Path, help="the release, if it is here already")
    options = parser.parse_args()
    if options.architecture is None:
        parser.error("this Python is none for Windows: give --architecture")
    if options.archive is not None:
        archive = options.archive.read_bytes()
    else:
        with urllib.request.urlopen(RELEASE, timeout=60) as response:
            archive = response.read()
    for name, data in files(archive, options.architecture).items():
        (PACKAGE / name).write_bytes(data)
        print(PACKAGE / name)


if __name__ == "__main__":
    main()
