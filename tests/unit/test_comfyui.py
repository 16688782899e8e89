"""The ComfyUI node, against a stand-in of the shape of ComfyUI's interface.

What the node needs of it, as its V3 schema is published, is all that is here: `folder_paths` with
`models_dir`; and of `comfy_api.latest` `ComfyExtension`, and `io` with `ComfyNode`, `Schema`,
`NodeOutput`, and the inputs and outputs `Combo`, `Image` and `Float`. ComfyUI reads the schema,
then calls `execute` with the inputs by name, and unpacks `NodeOutput.args`.
"""

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from fast_style import Stylizer
from fast_style.checkpoints.files import save_model, shipped_models
from fast_style.networks.transformer import TransformerNet

NODE = Path(__file__).parents[2] / "integrations/comfyui/__init__.py"


class Described:
    """An input, an output or a schema: what it was made with."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.arguments, self.keywords = arguments, keywords


class NodeOutput:
    def __init__(self, *arguments: Any) -> None:
        self.args = arguments


def kind(name: str) -> type:
    """Return a type of values, whose `Input` and `Output` know which type it is."""

    class Input(Described):
        of = name

    class Output(Described):
        of = name

    return type(name, (), {"Input": Input, "Output": Output})


@pytest.fixture
def node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_network: TransformerNet
) -> ModuleType:
    """The node's module, in a ComfyUI that has a model of the user's, sea.pth."""
    (tmp_path / "fast_style").mkdir()
    save_model(tmp_path / "fast_style/sea.pth", tiny_network)
    (tmp_path / "fast_style/notes.txt").write_text("no model")
    api = ModuleType("comfy_api.latest")
    api.ComfyExtension = type("ComfyExtension", (), {})  # type: ignore[attr-defined]
    api.io = SimpleNamespace(  # type: ignore[attr-defined]
        ComfyNode=type("ComfyNode", (), {}),
        Schema=Described,
        NodeOutput=NodeOutput,
        **{name: kind(name) for name in ("Combo", "Image", "Float")},
    )
    paths = ModuleType("folder_paths")
    paths.models_dir = str(tmp_path)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfy_api", ModuleType("comfy_api"))
    monkeypatch.setitem(sys.modules, "comfy_api.latest", api)
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    spec = importlib.util.spec_from_file_location("fast_style_node", NODE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_extension_names_the_node_and_its_inputs(node: ModuleType) -> None:
    (found,) = asyncio.run(asyncio.run(node.comfy_entrypoint()).get_node_list())
    schema = found.define_schema().keywords
    assert schema["node_id"] == "FastStyle"
    inputs = {one.arguments[0]: one for one in schema["inputs"]}
    names = ["model", "image", "strength", "preserve_color", "stroke_scale"]
    assert list(inputs) == names
    assert [one.of for one in schema["inputs"]] == ["Combo", "Image", "Float", "Combo", "Float"]
    shipped = [path.stem for path in shipped_models()]
    assert inputs["model"].keywords["options"] == [*shipped, "sea"]
    assert [one.of for one in schema["outputs"]] == ["Image"]


@pytest.mark.parametrize(
    "settings",
    [
        {"strength": 1.0, "preserve_color": "off", "stroke_scale": 1.0},
        {"strength": 0.5, "preserve_color": "luma", "stroke_scale": 2.0},
    ],
)
def test_a_batch_becomes_the_programs_pictures(
    node: ModuleType, tiny_network: TransformerNet, settings: dict[str, Any]
) -> None:
    images = torch.rand(2, 24, 33, 3)
    (stylized,) = node.FastStyle.execute(model="sea", image=images, **settings).args
    expected = Stylizer(tiny_network, **settings)(images.movedim(-1, 1)).movedim(1, -1)
    assert stylized.shape == images.shape
    assert torch.equal(stylized, expected)


def test_transparency_is_dropped(node: ModuleType) -> None:
    image = torch.rand(1, 16, 16, 4)
    settings = {"strength": 1.0, "preserve_color": "off", "stroke_scale": 1.0}
    (stylized,) = node.FastStyle.execute(model="sea", image=image, **settings).args
    (same,) = node.FastStyle.execute(model="sea", image=image[..., :3], **settings).args
    assert torch.equal(stylized, same)
