"""What the kernel itself calls a file."""

from __future__ import annotations

import os

import pytest

from movepages.linux.file_handle import read_file_handle

pytestmark = pytest.mark.host


def test_handle_is_the_files_own_by_whatever_path(tmp_path):
    """A link has the handle of its file, be it hard or symbolic; another file has another."""
    path = tmp_path / "file"
    path.touch()
    (tmp_path / "hard").hardlink_to(path)
    (tmp_path / "soft").symlink_to(path)
    (tmp_path / "other").touch()
    handle = read_file_handle(path)
    assert read_file_handle(tmp_path / "hard") == handle
    assert read_file_handle(str(tmp_path / "soft")) == handle
    assert read_file_handle(tmp_path / "other") != handle


def test_handle_outlives_a_rename_and_not_the_file(tmp_path):
    """The name is no part of it; a new file under the name, and perhaps the number, differs."""
    path = tmp_path / "file"
    path.touch()
    handle = read_file_handle(path)
    path.rename(tmp_path / "renamed")
    assert read_file_handle(tmp_path / "renamed") == handle
    (tmp_path / "renamed").unlink()
    path.touch()
    assert read_file_handle(path) != handle


def test_file_without_a_name_has_a_handle():
    """A memfd is named by the link to it in /proc."""
    one, other = os.memfd_create("one"), os.memfd_create("one")
    handles = {read_file_handle(f"/proc/self/fd/{descriptor}") for descriptor in (one, other)}
    assert len(handles) == 2
    os.close(one)
    os.close(other)


def test_what_cannot_be_told_is_an_os_error(tmp_path):
    """No such path, and a path through a file, have the errno of any call on a path."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_file_handle(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        read_file_handle(tmp_path / "file/below")
