"""Whole files or none."""

import errno
import os
from pathlib import Path

import pytest

from sharpmask.errors import ConfigError, SharpMaskError
from sharpmask.files import atomic_write


def test_appears_at_the_end_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with atomic_write(target) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".json"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("failure", [ValueError("x"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(type(failure)), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise failure
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_ordinary_permissions(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a"):
        pass
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    with atomic_write(tmp_path / "link") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "folder" / "file").read_text() == "x"
    assert (tmp_path / "link").is_symlink()


def test_devices_are_written_directly() -> None:
    with atomic_write("/dev/null") as path:
        path.write_text("x")
    assert not Path("/dev/null").is_file()


def test_clear_messages(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"), atomic_write(tmp_path / "no" / "a"):
        pass
    with pytest.raises(ConfigError, match="is a folder"), atomic_write(tmp_path):
        pass
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(SharpMaskError, match=r"cannot write .*a: No space left"), atomic_write(tmp_path / "a"):
        raise full
    assert os.listdir(tmp_path) == []


def test_other_files_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "input that is missing").read_text()
