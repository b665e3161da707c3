"""TU sets for `readouts check --data`: no more trusted than those of the experiments."""

import pytest

from readouts.commands.data import tu_set
from readouts.commands.target import CannotRunError
from tests.tu_files import publish, write_set


def test_tu_set_is_verified_and_its_labels_are_limited(tmp_path, monkeypatch):
    monkeypatch.setenv("READOUTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("READOUTS_TU_MIRROR", str(tmp_path))
    folder = write_set(tmp_path, node_labels="0\n1\n0\n2\n2\n900000000\n")
    with pytest.raises(CannotRunError, match=r"TINY_node_labels\.txt has labels too far apart"):
        tu_set("TINY")
    publish(folder, monkeypatch)
    (folder / "TINY_node_labels.txt").write_text("0\n" * 6)
    with pytest.raises(CannotRunError, match=r"TINY_node_labels\.txt from .* is not the published one"):
        tu_set("TINY")
