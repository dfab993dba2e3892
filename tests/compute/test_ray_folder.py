"""A local Ray's folder has a path short enough for sockets, for any TMPDIR."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pytest_panic_doctor.compute.ray import client
from pytest_panic_doctor.compute.ray.client import (
    LOCAL_ADDRESS,
    MAX_FOLDER,
    ClusterClient,
    ClusterUnavailableError,
    folder_for_ray,
)


@pytest.mark.parametrize("scratch", ["/tmp/panic-doctor-abcdefgh", "/t", "/" + "a" * (MAX_FOLDER - 5)])
def test_a_short_folder_is_taken(scratch: str) -> None:
    assert folder_for_ray(Path(scratch)) == Path(scratch, "ray")


@pytest.mark.parametrize("scratch", ["/" + "a" * (MAX_FOLDER - 4), "/tmp/" + "b/" * 90, "/tmp/" + "梨" * 20])
def test_a_long_one_is_not(scratch: str) -> None:
    folder = folder_for_ray(Path(scratch))
    try:
        assert len(os.fsencode(folder)) <= MAX_FOLDER
        assert folder.parent.is_dir()
        assert folder.parent.stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(folder.parent)


def test_the_next_place_is_tried_and_none_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Path("/tmp/" + "c" * 100)
    monkeypatch.setattr(client, "SHORT_FOLDERS", ("/no-such-folder", "/tmp"))
    shutil.rmtree(folder_for_ray(long).parent)
    monkeypatch.setattr(client, "SHORT_FOLDERS", ("/no-such-folder", "/nor-this"))
    with pytest.raises(
        ClusterUnavailableError, match="/no-such-folder, /nor-this: set TMPDIR to a folder of at most 14 characters"
    ):
        folder_for_ray(long)


@pytest.mark.integration
def test_a_local_ray_begins_below_a_long_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'pytest-panic-doctor[ray]'")
    scratch = tmp_path / ("d" * 100)
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    joined = ClusterClient(LOCAL_ADDRESS, 10**9, scratch)
    folder = joined._folder
    assert joined.size.nodes == 1
    joined.close()
    assert not folder.parent.exists()
    assert not list(scratch.iterdir())
