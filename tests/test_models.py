"""The networks: published counts, shapes, initialisation, names and errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sparsetrain import models


def on_meta(name: str, **options: object) -> nn.Module:
    """The network without memory: counts need no values."""
    with torch.device("meta"):
        return models.create(name, **options)  # pyright: ignore[reportArgumentType]


def prunable(model: nn.Module) -> list[Tensor]:
    return [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def counts(model: nn.Module) -> tuple[int, int, int]:
    """(prunable weights, all parameters, prunable tensors)."""
    weights = prunable(model)
    total = sum(p.numel() for p in model.parameters())
    return sum(w.numel() for w in weights), total, len(weights)


def least_image(name: str) -> int:
    """Smallest side that the network documents."""
    if name.startswith("vgg") or name == "lenet5":
        return 16
    if name.endswith("-imagenet"):
        return 32
    return 8 if name.endswith("-cifar") else 4


HYPERSPARSE = [  # Published; ResNets at double width. Model, classes, prunable, total, tensors.
    ("resnet20", 10, 1_081_440, 1_084_586, 22),
    ("resnet20", 100, 1_092_960, 1_096_196, 22),
    ("resnet20", 200, 1_105_760, 1_109_096, 22),
    ("resnet32", 10, 1_855_584, 1_860_522, 34),
    ("resnet32", 100, 1_867_104, 1_872_132, 34),
    ("resnet32", 200, 1_879_904, 1_885_032, 34),
    ("resnet44", 10, 2_629_728, 2_636_458, 46),
    ("resnet44", 100, 2_641_248, 2_648_068, 46),
    ("resnet44", 200, 2_654_048, 2_660_968, 46),
    ("resnet50", 10, 3_016_800, 3_024_426, 52),
    ("resnet50", 100, 3_028_320, 3_036_036, 52),
    ("resnet50", 200, 3_041_120, 3_048_936, 52),
    ("vgg11", 10, 9_222_848, 9_231_114, 9),
    ("vgg13", 10, 9_407_168, 9_416_010, 11),
    ("vgg16", 10, 14_715_584, 14_728_266, 14),
    ("vgg19", 10, 20_024_000, 20_040_522, 17),
    ("vgg19", 100, 20_070_080, 20_086_692, 17),
    ("vgg19", 200, 20_121_280, 20_137_992, 17),
]


@pytest.mark.parametrize(("name", "classes", "weights", "total", "tensors"), HYPERSPARSE)
def test_the_hypersparse_networks_have_the_published_counts(name, classes, weights, total, tensors):
    options = {"width": 2} if name.startswith("resnet") else {}

    assert counts(on_meta(name, num_classes=classes, **options)) == (weights, total, tensors)


def test_the_granet_networks_have_the_published_counts():
    assert counts(on_meta("resnet20")) == (270_896, 272_474, 22)
    assert counts(on_meta("resnet50-cifar")) == (23_467_712, 23_520_832, 54)
    assert counts(on_meta("resnet50-cifar", num_classes=100))[0] == 23_652_032


def test_the_lenets_have_the_published_counts_on_mnist():
    mnist = {"in_channels": 1, "image_size": 28}

    assert counts(on_meta("lenet-300-100", **mnist)) == (266_200, 266_610, 3)
    assert counts(on_meta("lenet5", **mnist)) == (430_500, 431_080, 4)


def test_stem_resnets_of_basic_blocks_are_the_published_ones_less_the_bias_of_the_head():
    assert counts(on_meta("resnet18-cifar")) == (11_164_352, 11_173_962 - 10, 21)
    assert counts(on_meta("resnet34-cifar")) == (21_265_088, 21_282_122 - 10, 37)


@pytest.mark.parametrize(
    ("depth", "parameters", "tensors"),
    [(18, 11_689_512, 21), (34, 21_797_672, 37), (50, 25_557_032, 54), (101, 44_549_160, 105)],
)
def test_imagenet_resnets_have_the_published_parameters(depth, parameters, tensors):
    model = on_meta(f"resnet{depth}-imagenet", num_classes=1000, image_size=224)

    assert counts(model)[1:] == (parameters, tensors)
    if depth == 50:  # spec: GraNet's masked weights
        assert counts(model)[0] == 25_502_912


def test_imagenet_bottlenecks_stride_in_the_3x3_and_carry_torchvisions_names():
    model = on_meta("resnet50-imagenet", num_classes=1000, image_size=224)
    modules = dict(model.named_modules())

    for stage in (2, 3, 4):
        block = f"layer{stage}.0"
        assert modules[f"{block}.conv1"].stride == (1, 1)
        assert modules[f"{block}.conv2"].stride == (2, 2)
        assert modules[f"{block}.downsample.0"].stride == (2, 2)
    names = set(model.state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer3.5.bn3.bias", "fc.bias"} <= names
    assert len(names) == 320  # as torchvision's resnet50


@pytest.mark.parametrize("init", ["fan_in", "fan_out"])
def test_imagenet_convolutions_are_drawn_for_the_fan_asked_for(init):
    torch.manual_seed(0)
    model = models.create("resnet18-imagenet", num_classes=10, image_size=224, init=init)
    axis = 1 if init == "fan_in" else 0

    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 30_000:
            fan = module.weight.shape[axis] * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.02)
    with pytest.raises(ValueError, match='init must be "fan_in" or "fan_out"'):
        models.create("resnet18-imagenet", image_size=224, init="fan_avg")


def basic_counts(depth: int, *, width: int, classes: int, channels: int) -> tuple[int, int, int]:
    """Closed form for basic blocks, from the shapes in the paper."""
    n, c = (depth - 2) // 6, 16 * width
    stages = 2 * n * 9 * c**2 + (2 * n - 1) * 9 * 4 * c**2 + (2 * n - 1) * 9 * 16 * c**2
    changes = 9 * 2 * c**2 + 9 * 8 * c**2 + 2 * c**2 + 8 * c**2  # 3x3 and 1x1, stages 2 and 3
    weights = 9 * channels * c + stages + changes + 4 * c * classes
    norms = 2 * (c + 2 * n * (c + 2 * c + 4 * c) + 2 * c + 4 * c)
    return weights, weights + norms + classes, 6 * n + 4


@pytest.mark.parametrize("depth", [8, 14, 20, 26, 32, 38, 44, 50, 56, 62, 110])
@pytest.mark.parametrize(("width", "classes", "channels"), [(1, 10, 3), (3, 7, 1)])
def test_every_depth_has_the_closed_form_counts(depth, width, classes, channels):
    model = on_meta(f"resnet{depth}", width=width, num_classes=classes, in_channels=channels)

    expected = basic_counts(depth, width=width, classes=classes, channels=channels)

    assert counts(model) == expected


@pytest.mark.parametrize(("name", "weights"), [("resnet56", 3_403_872), ("resnet110", 6_887_520)])
def test_the_deep_double_width_resnets_are_made_of_basic_blocks(name, weights):
    assert counts(on_meta(name, width=2))[0] == weights


@pytest.mark.parametrize(
    ("name", "options", "macs"),
    [
        ("resnet20", {}, 40_813_184),
        ("resnet32", {"width": 2}, 275_612_928),
        ("vgg19", {}, 398_136_320),
        ("resnet50-cifar", {}, 1_297_829_888),
        ("resnet50-imagenet", {"num_classes": 1000, "image_size": 224}, 4_089_184_256),
    ],
)
def test_a_forward_pass_takes_the_published_multiplications(name, options, macs):
    model = on_meta(name, **options).eval()
    size = options.get("image_size", 32)

    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, size, size, device="meta"))

    assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize("name", models.names())
def test_every_network_takes_grey_images_of_its_least_size(name):
    size = least_image(name)
    model = models.create(name, num_classes=3, in_channels=1, image_size=size)

    logits = model.eval()(torch.randn(2, 1, size, size))

    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19", "lenet5", "resnet50-cifar"])
@pytest.mark.parametrize("size", [28, 32, 64])
def test_images_of_28_to_64_pixels_fit(name, size):
    model = on_meta(name, num_classes=200, image_size=size)
    assert model(torch.empty(2, 3, size, size, device="meta")).shape == (2, 200)


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet18-cifar", "lenet-300-100", "mlp"])
def test_digits_train(name):
    torch.manual_seed(0)
    model = models.create(name, in_channels=1, image_size=8)

    model(torch.randn(4, 1, 8, 8)).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(w.grad is not None and w.grad.any() for w in prunable(model))


def test_prunable_tensors_come_in_the_published_order():
    names = [n for n, p in on_meta("resnet14").named_parameters() if p.dim() > 1]

    change = ["layer2.0.conv1.weight", "layer2.0.conv2.weight", "layer2.0.downsample.0.weight"]
    assert names[:2] == ["conv1.weight", "layer1.0.conv1.weight"]
    assert names[5:8] == change
    assert names[-1] == "fc.weight"


def test_bottlenecks_stride_in_the_3x3_convolution():
    modules = dict(on_meta("resnet50-cifar").named_modules())

    strides = [modules[f"layer2.0.conv{i}"].stride for i in (1, 2, 3)]

    assert strides == [(1, 1), (2, 2), (1, 1)]


def test_a_residual_block_with_silent_convolutions_is_the_relu_of_its_input():
    block = models.create("resnet8").get_submodule("layer1.0")
    for weight in prunable(block):
        nn.init.zeros_(weight)
    x = torch.randn(2, 16, 5, 5)

    assert torch.equal(block.eval()(x), x.relu())


@pytest.mark.parametrize("name", ["resnet8", "vgg11"])
def test_channels_last_is_kept_to_the_last_map_and_changes_no_logit(name):
    torch.manual_seed(0)
    model = models.create(name).eval()
    x = torch.randn(2, 3, 16, 16)
    plain = model(x)
    maps: list[Tensor] = []
    model.get_submodule("pool").register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))

    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    last = model(x.to(memory_format=torch.channels_last))

    assert maps[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet8", "resnet50-cifar", "vgg11", "lenet5", "mlp"])
def test_the_forward_pass_is_one_graph(name):
    model = on_meta(name)

    exported = torch.export.export(model, (torch.empty(2, 3, 32, 32, device="meta"),))

    assert exported.graph_signature.user_outputs


def test_full_backward_hooks_work():
    model = models.create("resnet8", image_size=8)
    seen: list[int] = []
    for module in model.modules():
        module.register_full_backward_hook(lambda *_: seen.append(1))

    model(torch.randn(2, 3, 8, 8, requires_grad=True)).sum().backward()

    assert len(seen) == len(list(model.modules()))


def test_hidden_layers_are_as_given():
    model = on_meta("mlp", in_channels=1, image_size=8, hidden=[5, 4])

    assert [tuple(w.shape) for w in prunable(model)] == [(5, 64), (4, 5), (10, 4)]

    # No hidden layer is softmax regression.
    assert counts(on_meta("mlp", in_channels=1, image_size=8, hidden=())) == (640, 650, 1)


@pytest.mark.parametrize("name", ["resnet8", "resnet18-cifar", "vgg11", "lenet5", "mlp"])
def test_the_global_seed_decides_every_weight(name):
    torch.manual_seed(7)
    first = models.create(name).state_dict()
    torch.manual_seed(7)
    again = models.create(name).state_dict()

    assert all(torch.equal(first[key], again[key]) for key in first)


def check_normal(weight: Tensor, std: float) -> None:
    """Mean and deviation within five standard errors, and tails no uniform draw would have."""
    n = weight.numel()
    assert abs(weight.mean()) < 5 * std / math.sqrt(n)
    assert abs(weight.std() - std) < 5 * std / math.sqrt(2 * n)
    assert weight.abs().max() > 2 * std


@pytest.mark.parametrize(("name", "fan"), [("resnet8", 0), ("vgg11", 1)])
def test_convolutions_are_he_normal_and_the_classifier_is_small(name, fan):
    """The fan is of the outputs (dimension 0) in ResNets, of the inputs (1) in VGGs."""
    torch.manual_seed(0)
    model = models.create(name)

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            k = module.kernel_size[0]
            check_normal(module.weight, math.sqrt(2 / (k**2 * module.weight.shape[fan])))
        if isinstance(module, nn.Linear):
            check_normal(module.weight, 0.01)
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("name", ["resnet18-cifar", "lenet5"])
def test_the_others_have_torchs_default_uniform_initialisation(name):
    torch.manual_seed(0)

    for weight in prunable(models.create(name)):
        bound = 1 / math.sqrt(weight[0].numel())
        assert weight.abs().max() <= bound
        error = 5 * bound / math.sqrt(weight.numel())
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), abs=error)


def test_every_name_is_described_in_one_line_with_its_options():
    options = {name: text for name, text, _ in models.describe()}

    assert tuple(options) == models.names()
    assert all(row.summary and "\n" not in row.summary for row in models.describe())
    assert options["resnet20"] == "width=1"
    assert options["mlp"] == "hidden=(256, 256)"
    assert options["vgg19"] == ""


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet-20", "resnet20"), ("VGG19", "vgg19"), ("lenet", "lenet5"), ("resnet", "resnet")],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all_known(name, near):
    with pytest.raises(ValueError, match=f"unknown model '{name}'. Did you mean '{near}") as error:
        models.create(name)

    assert all(known in str(error.value) for known in models.names())


@pytest.mark.parametrize(
    ("depth", "hint"),
    [
        (2, "Take resnet8."),
        (7, "Take resnet8."),
        (9, "Take resnet8 or resnet14."),
        (18, r"Take resnet14 or resnet20, or resnet18-cifar"),
        (34, r"Take resnet32 or resnet38, or resnet34-cifar"),
        (101, "Take resnet98 or resnet104, or resnet101-imagenet."),
    ],
)
def test_a_wrong_depth_is_answered_with_the_nearest_valid_ones(depth, hint):
    with pytest.raises(ValueError, match=rf"depth 6n \+ 2 >= 8, got resnet{depth}\. {hint}"):
        models.create(f"resnet{depth}")


def test_an_unknown_option_is_answered_with_the_nearest_and_the_allowed_ones():
    with pytest.raises(ValueError, match=r"'widht' of resnet20\. Did you mean 'width'\? Allowed"):
        models.create("resnet20", widht=2)
    with pytest.raises(ValueError, match="'width': vgg19 takes none"):
        models.create("vgg19", width=2)
    with pytest.raises(ValueError, match="'depth' of resnet20"):
        models.create("resnet20", depth=32)


@pytest.mark.parametrize("name", ["resnet20", "resnet18-cifar", "vgg11", "lenet5"])
def test_too_small_an_image_is_refused_with_the_least_size(name):
    least = least_image(name)

    with pytest.raises(ValueError, match=rf"image_size .* >= {least}, got {least - 1}\."):
        models.create(name, image_size=least - 1)


@pytest.mark.parametrize("name", ["resnet20", "resnet18-cifar", "vgg11", "lenet5", "mlp"])
@pytest.mark.parametrize("argument", ["num_classes", "in_channels", "image_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "10", True, None])
def test_sizes_that_make_no_sense_are_refused_by_name(name, argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be a whole number"):
        models.create(name, **{argument: value})


@pytest.mark.parametrize("width", [0, -2, 1.5, "2", True])
def test_a_width_must_be_a_positive_whole_number(width):
    with pytest.raises(ValueError, match="width must be a whole number >= 1"):
        models.create("resnet20", width=width)


@pytest.mark.parametrize("hidden", [300, "300,100", (300, 0), (300, 1.5)])
def test_hidden_must_be_a_sequence_of_positive_whole_numbers(hidden):
    with pytest.raises(ValueError, match="hidden must be"):
        models.create("mlp", hidden=hidden)
