"""More bags than a process may have open files: they are opened one at a time, and it is reported when not even one can be."""
from __future__ import annotations

import errno
import os
import shutil

import pytest
import replay_bag
import rosbag
from replay_bag import JOINTS
from still_policy import replay, without_a_model

from hybridvla_cli.__main__ import main
from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.replay.bags import BagError, BagShelf


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return replay_bag.write(tmp_path_factory.mktemp("bags") / "good.bag", replay_bag.Motion(4.0))


def test_a_bag_is_open_only_while_it_is_read(bag, tmp_path):
    broken = tmp_path / "broken.bag"
    broken.write_bytes(bag.read_bytes()[:-20000])
    paths = [bag, broken, *(shutil.copy(str(bag), str(tmp_path / f"{number}.bag")) for number in range(10))]
    before = len(os.listdir("/proc/self/fd"))
    with BagShelf(tmp_path) as shelf:
        opened = [shelf.open(tmp_path / path) for path in paths]
        assert len(os.listdir("/proc/self/fd")) == before
        first = [next(found.read([JOINTS])).when for found in opened]
        assert first == [first[0]] * len(paths) and sum(1 for _ in opened[1].read([JOINTS])) > 50
        assert len(os.listdir("/proc/self/fd")) == before
        (tmp_path / "3.bag").unlink()
        with pytest.raises(BagError, match="3.bag: is no longer there"):
            list(opened[5].read([JOINTS]))


@pytest.mark.parametrize("number, opens", [(errno.EMFILE, 0), (errno.EMFILE, 1), (errno.ENFILE, 3)])
def test_a_file_that_cannot_be_opened_for_many_others_ends_the_run_and_no_bag_is_called_damaged(
        bag, tmp_path, monkeypatch, capsys, number, opens):
    without_a_model(monkeypatch)
    init, seen, most = rosbag.Bag.__init__, [], [opens]

    def full(self, *given, **more):
        seen.append(given)
        if len(seen) > most[0]:
            raise OSError(number, os.strerror(number))
        init(self, *given, **more)

    monkeypatch.setattr(rosbag.Bag, "__init__", full)
    assert main(["dataset", "from-bags", str(bag), "-o", str(tmp_path / "set")]) == 1
    said = capsys.readouterr().err
    assert "good.bag: cannot be opened, because this " in said and "ulimit -n" in said and "damaged" not in said
    seen.clear()
    most[0] = min(opens, 2)     # the second pass over it
    with pytest.raises(HybridVLAError, match="too many files open"):
        replay(bag, rate=2.0)
