"""Workers as Ray actors on two nodes, by the command of docs/cluster.md: a node that is lost stops nothing."""

import pytest
from clusters import LONGER, documented, wait_until

pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")

import soak  # isort: skip - of scripts/, which clusters adds to the path

pytestmark = [pytest.mark.ray, pytest.mark.slow]
COMMAND = documented("runtime=ray")


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of a head without cores and two nodes."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield found
    found.shutdown()


def test_a_node_is_lost(tmp_path, cache, expected, cluster):
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    address = [f"runtime.ray.address={cluster.address}", "runtime.ray.gpus=0", "runtime.ray.workers=2"]
    process = soak.sweep(tmp_path, cache, "ray", *COMMAND, *address, *soak.SETTINGS, *LONGER)
    wait_until(lambda: list(tmp_path.glob("models/*/step-*")) or process.poll() is not None)
    cluster.remove_node(nodes[0], allow_graceful=False)
    soak.finish(process)
    assert soak.rows(tmp_path) == expected
    assert not list(tmp_path.glob("locks/*.lease-*"))


def test_wrong_addresses_are_one_line(tmp_path, cache):
    process = soak.sweep(tmp_path, cache, "ray", "runtime.ray.address=127.0.0.1:1")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "runtime.ray.address" in errors[0]


def test_a_sweep_that_leaves_is_finished_by_its_actors(tmp_path, cache, cluster):
    """Fault: with runtime.wait=false the command left before its actors had started, and they got nothing to do."""
    cluster.add_node(num_cpus=2)
    address = [f"runtime.ray.address={cluster.address}", "runtime.ray.gpus=0", "runtime.ray.workers=1"]
    settings = ["grid.scheme=[nope]", "grid.extension=[]", "runtime.wait=false"]
    output = soak.finish(soak.sweep(tmp_path, cache, "ray", *address, *settings, *LONGER))
    assert "2 jobs are submitted" in output
    wait_until(lambda: len(list(tmp_path.glob("jobs/*.json"))) == 2)
