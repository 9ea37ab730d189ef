"""Videos of simulated episodes: as long as the episode, all views side by side, named by what happened."""
import av
import numpy as np
import pytest

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_sim import tasks
from hybridvla_sim.experts import ExpertPolicy
from hybridvla_sim.suite import Suite
from hybridvla_sim.task import EpisodeSpec

CONFIG = load_file(PolicyConfig, ROOT / "config/policies/dual.yaml")
ROBOT = load_file(RobotConfig, ROOT / "config/robots/agilex.yaml")
VIEWS = [camera.view for camera in CONFIG.cameras]


@pytest.fixture
def suite():
    """Return a function that makes a suite of the tray with the expert, and close what it made."""
    made = []

    def make(film):
        made.append(Suite(ExpertPolicy(CONFIG.convention, VIEWS), CONFIG, ROBOT, tasks.load("tray"), film=film))
        made[-1].task.max_keyframes = 1
        return made[-1]

    yield make
    for one in made:
        one.task.max_keyframes = type(one.task).max_keyframes
        one.rig.close()


def test_a_video_shows_every_view_for_as_long_as_the_episode_lasted(suite, tmp_path):
    filmed = suite(tmp_path / "film")
    spec = EpisodeSpec(2_000_001, filmed.task.instructions()[0])
    result = filmed.run(spec)
    assert not result["success"]
    video, = (tmp_path / "film").iterdir()
    assert video.name == f"tray-2000001-{spec.instruction.replace(' ', '_')}-failure.mp4"
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert abs(len(frames) - 10.0 * result["time"]) <= 1.0
    views = np.split(frames[-1], len(VIEWS), axis=1)
    assert views[0].shape == filmed.rig.render(VIEWS[0]).shape
    for view, shown in zip(VIEWS, views):
        assert np.abs(shown.astype(float) - filmed.rig.render(view)).mean() < 12.0, view
    assert np.abs(frames[0].astype(float) - frames[-1]).mean() > 1.0, "the arms have moved"


def test_the_episode_is_the_same_with_and_without_a_video(suite, tmp_path):
    def run(film):
        found = suite(film)
        result = found.run(EpisodeSpec(2_000_002, found.task.instructions()[0]))
        return result["time"], [row["errors"] for row in result["decisions"]], found.rig.data.qpos.tolist()

    assert run(tmp_path) == run(None)


def test_a_switched_episode_says_both_sentences(suite, tmp_path):
    filmed = suite(tmp_path)
    words = filmed.task.instructions()[0]
    filmed.run(EpisodeSpec(2_000_003, words, 0.2, words))
    video, = tmp_path.iterdir()
    assert video.name == f"tray-2000003-{words} then {words}-failure.mp4".replace(" ", "_")


def test_a_folder_that_cannot_be_written_is_named(suite, tmp_path):
    (tmp_path / "file").touch()
    filmed = suite(tmp_path / "file")
    with pytest.raises(HybridVLAError, match=r"--film .*file: tray-2000001-.*cannot be written"):
        filmed.run(EpisodeSpec(2_000_001, filmed.task.instructions()[0]))
