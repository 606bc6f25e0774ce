"""Ranks are started by a launcher."""

import pytest

from assets.lib.ranks import join_ranks


def test_several_ranks_need_a_launcher(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="WORLD_SIZE = 2 does not work: start it with torchrun"):
        join_ranks.__wrapped__()
