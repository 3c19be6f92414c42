"""The graph in a manifest: every node with its operator, inputs and attributes, in order."""

import json
import re
import shutil
from inspect import signature
from pathlib import Path

import pytest
from support import edit

import refnet
from refnet import bounded_json, golden
from refnet.golden import graph
from refnet.networks import ARCHITECTURES
from refnet.ops import OPS

RECIPE = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), {"width_per_group": 4, "time_kernel": 1})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return golden.make(tmp_path_factory.mktemp("golden") / "bundle", RECIPE, hashes_only=True)


def edited(made, path, change):
    path = shutil.copytree(made.path, path)
    edit(path, change)
    return path


def bad(findings):
    return [(f.section, f.name, f.note) for f in findings if not f.equal]


def test_a_manifest_describes_every_node(made):
    found = json.loads((made.path / "manifest.json").read_text())["graph"]
    net = RECIPE.net()
    assert found["outputs"] == ["res4_1_relu"]
    assert [node["name"] for node in found["nodes"]] == [node.name for node in net.nodes]
    assert found["nodes"][0] == {
        "name": "conv1",
        "operator": "conv3d",
        "inputs": ["data", "conv1_w"],
        "attributes": {"stride": [1, 2, 2], "pad": [0, 3, 3], "dilation": [1, 1, 1], "groups": 1},
    }
    for node, described in zip(net.nodes, found["nodes"], strict=True):
        assert (described["operator"], tuple(described["inputs"])) == (node.op, node.inputs)
        given = {n: list(v) if isinstance(v, tuple) else v for n, v in node.attrs.items()}
        assert given.items() <= described["attributes"].items()
        keywords = {
            p.name for p in signature(OPS[node.op].infer).parameters.values() if p.kind is p.KEYWORD_ONLY
        }
        assert described["attributes"].keys() == keywords
    assert made.graph == found


def test_the_page_describes_every_key_and_shows_a_node(made):
    page = (Path(__file__).parents[1] / "docs" / "bundle.md").read_text()
    described = {
        key for line in page.splitlines() for key in re.findall(r"`(\w+)`", line.partition(" | ")[0])
    }
    assert made.manifest.keys() <= described | {"fallbacks"}
    (recipe,) = [line for line in page.splitlines() if line.startswith("| `recipe` |")]
    assert made.manifest["recipe"].keys() <= {*re.findall(r"`(\w+)`", recipe)}
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert json.loads(example) == made.graph["nodes"][0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_from_its_graph_a_network_is_built_again(name):
    net = refnet.build(name)
    described = json.loads(json.dumps(graph.record(net)))
    twin = graph.build(graph.checked(described), net.inputs, net.params)
    assert [(n.name, n.op, n.inputs, n.shape) for n in twin.nodes] == [
        (n.name, n.op, n.inputs, n.shape) for n in net.nodes
    ]
    assert (twin.outputs, twin.inputs, twin.params) == (net.outputs, net.inputs, net.params)
    assert graph.record(twin) == described
    tensors = len(net.nodes) + 2 * len(net.params) + 2 * len(net.inputs) + len(net.outputs)
    assert len(json.dumps(described, indent=1)) + 400 * tensors < bounded_json.LARGEST / 2


def test_a_graph_that_is_not_its_recipes_is_found(made, tmp_path):
    def change(manifest):
        manifest["graph"]["nodes"][0]["attributes"]["stride"] = [1, 1, 1]

    path = edited(made, tmp_path / "a", change)
    assert bad(golden.verify(path)) == [
        (
            "graph",
            "conv1",
            "conv1 = conv3d(data, conv1_w; pad 0x3x3) in the manifest, "
            "derived conv1 = conv3d(data, conv1_w; stride 1x2x2, pad 0x3x3)",
        )
    ]
    path = edited(made, tmp_path / "b", lambda m: m["graph"]["nodes"].pop())
    (found,) = bad(golden.verify(path))
    assert found[:2] == ("graph", "res4_1_relu") and found[2].startswith("nothing in the manifest, derived")
    path = edited(made, tmp_path / "c", lambda m: m["graph"].update(outputs=["conv1"]))
    assert bad(golden.verify(path)) == [("graph", "outputs", "conv1 in the manifest, derived res4_1_relu")]


def test_a_bundle_of_version_2_is_still_read(made, tmp_path):
    """It has no graph, and nothing of anybody's own."""

    def older(manifest):
        manifest["format_version"] = 2
        manifest.pop("graph")
        manifest["recipe"].pop("store")
        manifest["recipe"].pop("own")

    path = edited(made, tmp_path / "a", older)
    bundle = golden.Bundle(path)
    assert bundle.graph is None and bundle.recipe == made.recipe
    assert not bad(golden.verify(path)) and not bad(golden.diff(path, made.path))
