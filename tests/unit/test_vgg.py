import pytest
import torch
import torchvision
from torch import Tensor, nn

from fast_style.networks.vgg import VGGFeatures, canonical_layer, layer_indices

VGG16_LAYERS = [
    *("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3"),
    *("relu4_1", "relu4_2", "relu4_3", "relu5_1", "relu5_2", "relu5_3"),
]


def torchvision_feature_maps(network: str, vgg: VGGFeatures, images: Tensor) -> dict[str, Tensor]:
    """Run torchvision's own network with the same weights, naming the outputs of its ReLUs."""
    with torch.device("meta"):
        whole = getattr(torchvision.models, network)()
    whole.features.load_state_dict(vgg.features.state_dict(), assign=True)
    maps: dict[str, Tensor] = {}
    block, position = 1, 0
    for module in whole.features:
        if isinstance(module, nn.MaxPool2d):
            block, position = block + 1, 0
        elif isinstance(module, nn.ReLU):
            position += 1

            def keep(_m: nn.Module, _i: object, y: Tensor, name: str = f"relu{block}_{position}"):
                maps[name] = y.clone()

            module.register_forward_hook(keep)
    mean = torch.tensor([123.68, 116.779, 103.939]).reshape(3, 1, 1)
    with torch.no_grad():
        whole.features(images * 255 - mean)
    return maps


@pytest.mark.parametrize(("network", "count"), [("vgg16", 13), ("vgg19", 16)])
def test_every_layer_is_the_one_torchvision_computes(network: str, count: int) -> None:
    names = list(layer_indices(network))
    vgg = VGGFeatures(network, names)
    images = torch.rand(2, 3, 33, 40)
    expected = torchvision_feature_maps(network, vgg, images)
    assert list(expected) == names
    assert len(names) == count
    maps = vgg(images)
    for name in names:
        torch.testing.assert_close(maps[name], expected[name], rtol=1e-4, atol=1e-4)


def test_layer_names_are_those_of_the_literature() -> None:
    assert list(layer_indices("vgg16")) == VGG16_LAYERS
    more = {"relu3_4", "relu4_4", "relu5_4"}
    assert set(layer_indices("vgg19")) == {*VGG16_LAYERS, *more}


def test_keras_names_are_accepted() -> None:
    assert canonical_layer("vgg16", "block1_conv2") == "relu1_2"
    assert canonical_layer("vgg19", "block5_conv4") == "relu5_4"
    assert VGGFeatures("vgg16", ["block1_conv2", "relu1_2"]).layers == ("relu1_2",)


@pytest.mark.parametrize("name", ["relu3_4", "block3_conv4"])
def test_an_unknown_layer_names_the_network_and_the_nearest(name: str) -> None:
    with pytest.raises(ValueError, match=rf"vgg16 has no layer '{name}'; did you mean 'relu3_"):
        canonical_layer("vgg16", name)


def test_a_layer_like_no_other_lists_them_all() -> None:
    with pytest.raises(ValueError, match=r"vgg16 has no layer 'zzz'; its layers are relu1_1, relu"):
        VGGFeatures("vgg16", ["zzz"])


def test_no_layers_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        VGGFeatures("vgg16", [])


@pytest.mark.parametrize(
    ("layer", "minimum"), [("relu1_2", 1), ("relu2_1", 2), ("relu3_3", 4), ("relu4_3", 8)]
)
def test_an_image_too_small_for_the_layer_is_refused_by_name(layer: str, minimum: int) -> None:
    vgg = VGGFeatures("vgg16", [layer])
    assert min(vgg(torch.rand(1, 3, minimum, minimum + 1))[layer].shape) >= 1
    if minimum > 1:
        with pytest.raises(ValueError, match=f"{minimum + 5}×{minimum - 1} is too small for layer"):
            vgg(torch.rand(1, 3, minimum - 1, minimum + 5))


def test_a_shallow_request_works_on_an_image_too_small_for_the_deep_layers() -> None:
    vgg = VGGFeatures("vgg16", ["relu1_2", "relu4_3"])
    assert set(vgg(torch.rand(1, 3, 2, 2), ["relu1_2"])) == {"relu1_2"}


def test_it_holds_nothing_behind_the_deepest_layer() -> None:
    vgg = VGGFeatures("vgg16", ["relu2_2", "relu1_2"])
    assert len(vgg.features) == layer_indices("vgg16")["relu2_2"] + 1 == 9


def test_a_request_for_some_layers_runs_no_deeper() -> None:
    vgg = VGGFeatures("vgg16", ["relu1_2", "relu2_2", "relu3_3"])
    ran: list[int] = []
    for index, module in enumerate(vgg.features):
        module.register_forward_hook(lambda *_, index=index: ran.append(index))
    maps = vgg(torch.rand(1, 3, 16, 16), ["relu1_2", "relu2_2"])
    assert set(maps) == {"relu1_2", "relu2_2"}
    assert ran == list(range(9))


def test_a_feature_map_is_not_overwritten_by_the_layers_after_it() -> None:
    vgg = VGGFeatures("vgg16", ["relu1_1", "relu1_2"])
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(vgg(images)["relu1_1"], vgg(images, ["relu1_1"])["relu1_1"])


def test_the_input_is_rgb_in_0_to_255_minus_the_mean() -> None:
    vgg = VGGFeatures("vgg16", ["relu1_1"])
    with torch.no_grad():
        convolution = vgg.features[0]
        convolution.weight.zero_()
        convolution.bias.fill_(200)  # keeps everything above zero
        for channel in range(3):
            convolution.weight[channel, channel, 1, 1] = 1
    images = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    pixel = vgg(images)["relu1_1"][0, :3, 0, 0] - 200
    expected = torch.tensor([0 - 123.68, 63.75 - 116.779, 255 - 103.939])
    torch.testing.assert_close(pixel, expected, rtol=0, atol=1e-4)


def test_it_is_frozen_and_passes_gradients_to_the_image() -> None:
    vgg = VGGFeatures("vgg16", ["relu1_2"])
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    vgg(images)["relu1_2"].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert not vgg.training
    assert all(p.grad is None and not p.requires_grad for p in vgg.parameters())
