"""Where wintun.dll is looked for, and how it gets into a wheel; nothing here needs Windows."""

import hashlib
import importlib.util
import io
import sys
import zipfile
from pathlib import Path

import pytest

import tuntap
from tuntap import _config, _core

TOOL = Path(__file__).resolve().parent.parent / "tools/wintun.py"
PACKAGE = Path(tuntap.__file__).resolve().parent


class TestPlaces:
    def test_the_package(self):
        assert _config.wintun_files(None) == [str(PACKAGE / "wintun.dll")]

    def test_a_bundle(self, monkeypatch, tmp_path):
        monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)
        assert _config.wintun_files(None) == [str(PACKAGE / "wintun.dll"), str(tmp_path / "wintun.dll")]

    def test_never_the_current_directory(self, monkeypatch, tmp_path):
        (tmp_path / "wintun.dll").write_bytes(b"")
        monkeypatch.chdir(tmp_path)
        assert not [path for path in _config.wintun_files(None) if path.startswith(str(tmp_path))]
        assert all(Path(path).is_absolute() for path in _config.wintun_files(None))

    def test_a_file_or_its_folder(self, monkeypatch, tmp_path):
        library = tmp_path / "wintun.dll"
        library.write_bytes(b"")
        assert _config.wintun_files(library) == [str(library)]
        assert _config.wintun_files(str(tmp_path)) == [str(library)]
        monkeypatch.chdir(tmp_path)
        assert _config.wintun_files("wintun.dll") == [str(library)]  # asked for in so many words

    @pytest.mark.parametrize("name", ["other.dll", "folder/wintun.dll"])
    def test_what_is_not_there(self, tmp_path, name):
        with pytest.raises(tuntap.TunTapError, match="no such file") as caught:
            _config.wintun_files(tmp_path / name)
        assert caught.value.filename == str(tmp_path / name)

    @pytest.mark.parametrize("value", [7, b"wintun.dll", ["x"], object()])
    def test_what_is_no_path(self, value):
        with pytest.raises(TypeError):
            _config.wintun_files(value)

    @pytest.mark.parametrize("value", ["a\0b", "a\nb"])
    def test_what_is_no_name(self, value):
        with pytest.raises(ValueError):
            _config.wintun_files(value)


@pytest.mark.skipif(not TOOL.exists(), reason="needs the source tree")
class TestTool:
    @pytest.fixture
    def tool(self):
        spec = importlib.util.spec_from_file_location("wintun_tool", TOOL)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        return tool

    @pytest.fixture
    def release(self):
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            for architecture in ("amd64", "arm64", "x86", "arm"):
                archive.writestr(f"wintun/bin/{architecture}/wintun.dll", architecture)
            archive.writestr("wintun/LICENSE.txt", "licence")
        return memory.getvalue()

    @pytest.mark.parametrize("architecture", ["amd64", "arm64", "x86"])
    def test_each_architecture(self, tool, release, architecture, monkeypatch, tmp_path):
        monkeypatch.setattr(tool, "SHA256", hashlib.sha256(release).hexdigest())
        monkeypatch.setattr(tool, "PACKAGE", tmp_path)
        (tmp_path / "release.zip").write_bytes(release)
        arguments = ["--architecture", architecture, "--archive", str(tmp_path / "release.zip")]
        monkeypatch.setattr(sys, "argv", ["wintun.py", *arguments])
        tool.main()
        assert (tmp_path / "wintun.dll").read_text() == architecture
        assert (tmp_path / "wintun-LICENSE.txt").read_text() == "licence"

    def test_another_file_is_refused(self, tool, release, monkeypatch, tmp_path):
        monkeypatch.setattr(tool, "PACKAGE", tmp_path)
        (tmp_path / "release.zip").write_bytes(release)
        arguments = ["--architecture", "amd64", "--archive", str(tmp_path / "release.zip")]
        monkeypatch.setattr(sys, "argv", ["wintun.py", *arguments])
        with pytest.raises(ValueError, match="SHA-256"):
            tool.main()
        assert not (tmp_path / "wintun.dll").exists()

    def test_a_python_of_another_system(self, tool, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["wintun.py"])
        if tool.ARCHITECTURES.get(tool.sysconfig.get_platform()) is None:
            with pytest.raises(SystemExit):
                tool.main()
            assert "--architecture" in capsys.readouterr().err


@pytest.mark.skipif("wintun" in _core.capabilities(), reason="it can be deleted here")
def test_a_driver_that_comes_with_the_system():
    with pytest.raises(tuntap.UnsupportedError, match="driver"):
        tuntap.delete_driver()
