"""A ComfyUI node: an image in a style of fast-style's.

Copy or link this folder into ComfyUI's custom_nodes, and install fast-style into ComfyUI's Python.
Models are the shipped ones, and the .pth and .safetensors files in ComfyUI's models/fast_style.
"""

from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io

from fast_style import Stylizer
from fast_style.checkpoints.files import shipped_models

FOLDER = Path(folder_paths.models_dir) / "fast_style"
ENDINGS = (".pth", ".safetensors")


def _models() -> dict[str, Path]:
    """Return the models by name; a file of the user's comes before a shipped one of that name."""
    own = sorted(path for path in FOLDER.glob("*") if path.suffix in ENDINGS)
    return {path.stem: path for path in (*shipped_models(), *own)}


class FastStyle(io.ComfyNode):
    """Applies a trained network to images: (B, H, W, 3), float in [0, 1], as ComfyUI has them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="FastStyle",
            display_name="Fast Style",
            category="image/stylize",
            description="Paints an image in the style of a trained network, in one forward pass.",
            inputs=[
                io.Combo.Input("model", options=list(_models())),
                io.Image.Input("image"),
                io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.05),
                io.Combo.Input("preserve_color", options=["off", "luma", "histogram"]),
                io.Float.Input("stroke_scale", default=1.0, min=0.25, max=8.0, step=0.25),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls,
        model: str,
        image: torch.Tensor,
        strength: float,
        preserve_color: str,
        stroke_scale: float,
    ) -> io.NodeOutput:
        """Stylize each image of the batch."""
        stylizer = Stylizer(
            _models()[model],
            strength=strength,
            preserve_color=preserve_color,
            stroke_scale=stroke_scale,
        )
        # Transparency is not the network's: the alpha of an RGBA image is dropped.
        stylized = stylizer(image[..., :3].movedim(-1, -3))
        return io.NodeOutput(stylized.movedim(-3, -1))


class FastStyleExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes."""
        return [FastStyle]


async def comfy_entrypoint() -> ComfyExtension:
    """Return the extension: ComfyUI calls this."""
    return FastStyleExtension()
