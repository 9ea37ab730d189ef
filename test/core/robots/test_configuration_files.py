"""YAML and JSON files as people write them: duplicate keys, and on and off as words."""
from __future__ import annotations

import pytest
import yaml

from hybridvla_core.configuration import load_file, read_mapping
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig

pytestmark = pytest.mark.robot_computer


@pytest.mark.parametrize("name, text, said", [
    ("a.yaml", "speed: 1\nother: 2\nspeed: 3\n", r"key speed stands twice, in line 1 and in line 3; leave one of them out$"),
    ("a.yaml", "arms:\n- {name: a, \"name\": b}\n", "key name stands twice, in line 2 and in line 2"),
    ("a.yaml", "1: a\n1: b\n", "key 1 stands twice"),
    ("a.json", '{"a": {"speed": 1, "speed": 2}}', "key speed stands twice")])
def test_a_key_that_stands_twice_is_refused_by_its_lines(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_mapping(tmp_path / name)


def test_what_is_merged_in_may_be_overridden(tmp_path):
    (tmp_path / "a.yaml").write_text("first: &first {a: 1, b: 2}\nsecond: &second\n  <<: *first\n  b: 3\n"
                                     "third:\n  <<: [*second, *first]\n  a: 4\nagain: *second\n")
    found = read_mapping(tmp_path / "a.yaml")
    assert found["second"] == found["again"] == {"a": 1, "b": 3} and found["third"] == {"a": 4, "b": 3}
    assert found["first"] == {"a": 1, "b": 2}


def test_of_a_list_that_is_merged_in_the_first_mapping_counts(tmp_path):
    (tmp_path / "a.yaml").write_text("one: &one {alpha: 1, beta: 1}\nother: &other {alpha: 2, gamma: 2}\n"
                                     "both: {<<: [*one, *other]}\n")
    assert read_mapping(tmp_path / "a.yaml")["both"] == {"alpha": 1, "beta": 1, "gamma": 2}


def test_a_limit_that_stands_twice_in_a_robots_file_is_refused(tmp_path):
    text = (ROOT / "config/robots/sim_fr3.yaml").read_text()
    line = next(line for line in text.splitlines() if line.strip().startswith("speed_m_s:"))
    (tmp_path / "robot.yaml").write_text(text.replace(line, f"{line}\n{line.split(':')[0]}: 9.0", 1))
    with pytest.raises(ConfigurationError, match="key speed_m_s stands twice"):
        load_file(RobotConfig, tmp_path / "robot.yaml")


def policy(tmp_path, **keys):
    data = yaml.safe_load((ROOT / "config/policies/tiny.yaml").read_text())
    for key in keys:
        data.pop(key, None)
    words = "".join(f"{key}: {value}\n" for key, value in keys.items())
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data) + words)
    return load_file(PolicyConfig, tmp_path / "policy.yaml")


@pytest.mark.parametrize("keys, found", [(dict(graphs="off", compile="off"), ("off", "off")), (dict(graphs="on"), ("on", "off")),
                                         (dict(graphs="'off'", compile="auto"), ("off", "auto"))])
def test_on_and_off_are_words_where_words_are_wanted(tmp_path, keys, found):
    config = policy(tmp_path, **keys)
    assert (config.graphs, config.compile) == found


@pytest.mark.parametrize("keys, said", [
    (dict(graphs="maybe"), "graphs is 'maybe'; use one of auto, on, off"),
    (dict(compile="on"), "compile is 'on'; use off or auto"),
    (dict(mode="off"), "mode"), (dict(all_tokens="'off'"), "all_tokens")])
def test_other_words_are_refused_by_the_key(tmp_path, keys, said):
    with pytest.raises(ConfigurationError, match=said):
        policy(tmp_path, **keys)
