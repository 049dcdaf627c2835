"""Sparse training steps against the dense masked network in float64, and what runs dense."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain import models
from sparsetrain.compute.value import PackedTensor
from tests.kernel_tools import built


class Odd(nn.Module):
    """In-place ReLU, strides, groups, a concatenation, and functions without a packed form."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 5, 2, padding=2), nn.BatchNorm2d(8, affine=False)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.conv3, self.bn3 = nn.Conv2d(16, 6, (1, 3), padding=(0, 1)), nn.BatchNorm2d(6)
        self.pool, self.fc = nn.AvgPool2d(2), nn.Linear(6 * 4, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = x + x
        x = torch.cat([x, torch.tanh(self.conv2(x))], 1)
        x = self.pool(self.bn3(self.conv3(x)) * 2)
        return self.fc(x.flatten(1))


NETS = {
    "resnet8": lambda: models.create("resnet8", num_classes=5, in_channels=3, image_size=8),
    "vgg11": lambda: models.create("vgg11", num_classes=5, in_channels=3, image_size=16),
    "lenet5": lambda: models.create("lenet5", num_classes=5, in_channels=3, image_size=16),
    "mlp": lambda: models.create("mlp", num_classes=5, in_channels=3, image_size=8, hidden=(20, 9)),
    "odd": Odd,
}
SIZES = {"vgg11": 16, "lenet5": 16}


def attached(name, method, *, last=False):
    torch.manual_seed(0)
    model = NETS[name]()
    if last:
        model = model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, st.Sparsifier(model, optimizer, method)


def images_of(name, count=50):
    size = SIZES.get(name, 8)
    return torch.randn(count, 3, size, size), torch.randint(0, 5, (count,))


@pytest.mark.parametrize("count", [19, 50])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_loss_and_gradients_are_those_of_the_masked_network(name, last, count):
    model, _, sparsifier = attached(name, st.methods.static(sparsity=0.7), last=last)
    images, labels = images_of(name, count)
    exact = copy.deepcopy(model).double()
    dense = copy.deepcopy(model)
    compute = st.SparseCompute(sparsifier, mode="sparse")
    with compute:
        out = model(images)
        loss = F.cross_entropy(out, labels)
    assert isinstance(out, PackedTensor)
    loss.backward()
    F.cross_entropy(dense(images), labels).backward()
    wanted = F.cross_entropy(exact(images.double()), labels)
    wanted.backward()
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=0)
    mine, theirs = dict(model.named_parameters()), dict(dense.named_parameters())
    for key, parameter in exact.named_parameters():
        mask = sparsifier.masks.get(key)
        expected = parameter.grad if mask is None else parameter.grad * mask
        off = theirs[key].grad if mask is None else theirs[key].grad * mask
        found, scale = mine[key].grad.double(), expected.abs().max()
        found = found if mask is None else found * mask  # a layer that ran dense has all
        if scale < 1e-12:  # a bias behind batch norm
            assert found.abs().max() < 1e-6
            continue
        # Where a ReLU falls on the other side of zero in float32, dense float32 is off as much.
        allowed = max(1e-5, 2 * ((off.double() - expected).abs().max() / scale).item())
        assert (found - expected).abs().max() <= allowed * scale, key
    for key, buffer in exact.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[key].to(buffer.dtype), buffer)


def test_gradients_of_a_network_without_kinks_near_zero_are_exact():
    """Batch norm pushes every ReLU well away from zero: relative 1e-5 with no allowance."""
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 9, 3, padding=1), nn.BatchNorm2d(9), nn.ReLU(), nn.MaxPool2d(2)]
    parts += [nn.Conv2d(9, 7, 3, 2, padding=1), nn.BatchNorm2d(7), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*parts, nn.Linear(7 * 4, 4))
    for norm in (model[1], model[5]):
        with torch.no_grad():
            norm.weight.fill_(0.1)
            norm.bias.copy_(torch.arange(len(norm.bias)) % 2 * 4 - 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.6))
    images, labels = torch.randn(21, 3, 8, 8), torch.randint(0, 4, (21,))
    exact = copy.deepcopy(model).double()
    margins = []
    for module in exact:
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda m, given, out: margins.append(given[0].abs().min()))
    F.cross_entropy(exact(images.double()), labels).backward()
    assert min(margins) > 0.1
    with st.SparseCompute(sparsifier, mode="sparse"):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()
    for (key, parameter), mine in zip(exact.named_parameters(), model.parameters(), strict=True):
        expected = parameter.grad * sparsifier.masks.get(key, 1)
        bound = 1e-5 * expected.abs().max() if expected.abs().max() > 1e-12 else 1e-6
        assert (mine.grad.double() - expected).abs().max() <= bound, key


def steps(model, optimizer, compute, data, count=6):
    for _ in range(count):
        with compute:
            loss = F.cross_entropy(model(data[0]), data[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss


def test_training_keeps_zeros_and_lowers_the_loss():
    model, optimizer, sparsifier = attached("resnet8", st.methods.static(sparsity=0.8))
    data, compute = images_of("resnet8", 40), st.SparseCompute(sparsifier, mode="sparse")
    first = steps(model, optimizer, compute, data, 1)
    last = steps(model, optimizer, compute, data, 15)
    assert last < 0.5 * first
    for name, weight in sparsifier.weights.items():
        assert not weight[~sparsifier.masks[name]].any()
        assert not optimizer.state[weight]["momentum_buffer"][~sparsifier.masks[name]].any()


def test_growth_sees_the_dense_gradient():
    method = st.methods.create("rigl", sparsity=0.8, total_steps=40, update_every=4)
    grown = []
    for mode in (None, "sparse"):
        model, optimizer, sparsifier = attached("lenet5", method)
        data = images_of("lenet5", 32)
        torch.manual_seed(1)
        compute = torch.enable_grad() if mode is None else st.SparseCompute(sparsifier, mode=mode)
        if mode is None:
            for _ in range(5):
                loss = F.cross_entropy(model(data[0]), data[1])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        else:
            steps(model, optimizer, compute, data, 5)
        grown.append({name: mask.clone() for name, mask in sparsifier.masks.items()})
    assert sum(int((grown[0][n] != grown[1][n]).sum()) for n in grown[0]) <= 4


def test_a_step_before_an_update_runs_dense_and_the_others_sparse():
    method = st.methods.create("rigl", sparsity=0.8, total_steps=40, update_every=3)
    model, optimizer, sparsifier = attached("lenet5", method)
    images, labels = images_of("lenet5")
    compute, packed = st.SparseCompute(sparsifier, mode="sparse"), []
    for _ in range(7):
        with compute:
            out = model(images)
            loss = F.cross_entropy(out, labels)
        packed.append(isinstance(out, PackedTensor))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert packed == [True, True, False, True, True, False, True]


def test_a_method_that_observes_every_step_runs_dense():
    method = st.methods.create("snfs", sparsity=0.8, total_steps=40)
    _, _, sparsifier = attached("lenet5", method)
    assert not st.SparseCompute(sparsifier, mode="sparse").runs_sparse


def test_a_changed_mask_is_followed():
    model, optimizer, sparsifier = attached("lenet5", st.methods.static(sparsity=0.8))
    data, compute = images_of("lenet5"), st.SparseCompute(sparsifier, mode="sparse")
    steps(model, optimizer, compute, data, 2)
    before = model.fc1.weight.grad.count_nonzero()
    sparsifier.masks["fc1.weight"][:] = True
    dense = copy.deepcopy(model)
    steps(model, optimizer, compute, data, 1)
    dense.zero_grad()
    F.cross_entropy(dense(data[0]), data[1]).backward()
    torch.testing.assert_close(model.fc1.weight.grad, dense.fc1.weight.grad)
    assert model.fc1.weight.grad.count_nonzero() > before


@built
def test_choices_are_made_once_and_taken_over():
    model, optimizer, sparsifier = attached("resnet8", st.methods.static(sparsity=0.7))
    data, compute = images_of("resnet8"), st.SparseCompute(sparsifier, mode="fixed")
    steps(model, optimizer, compute, data, 2)
    made = compute.choices
    assert set(made.values()) <= {"sparse", "dense"}
    assert {key.split()[0] for key in made} == set(sparsifier.masks)
    turned = dict.fromkeys(made, "sparse")
    other = st.SparseCompute(sparsifier, mode="fixed", known=turned)
    steps(model, optimizer, other, data, 1)
    assert other.choices == turned


def test_dense_layers_between_sparse_ones_change_nothing():
    model, _, sparsifier = attached("resnet8", st.methods.static(sparsity=0.7))
    images, labels = images_of("resnet8")
    probe = st.SparseCompute(sparsifier, mode="fixed")
    with probe:
        model(images)
    mixed = {key: ("sparse", "dense")[i % 2] for i, key in enumerate(probe.choices)}
    grads = []
    for known in (mixed, dict.fromkeys(mixed, "dense")):
        copied = copy.deepcopy(model)
        with st.SparseCompute(sparsifier, mode="fixed", known=known):
            loss = F.cross_entropy(model(images), labels)
        model.zero_grad()
        loss.backward()
        grads.append({n: p.grad * sparsifier.masks.get(n, 1) for n, p in model.named_parameters()})
        model.load_state_dict(copied.state_dict())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-3, atol=1e-4)


def test_evaluation_in_the_context_is_that_outside():
    model, optimizer, sparsifier = attached("resnet8", st.methods.static(sparsity=0.8))
    data, compute = images_of("resnet8"), st.SparseCompute(sparsifier, mode="sparse")
    steps(model, optimizer, compute, data, 3)
    model.eval()
    with compute, torch.no_grad():
        inside = model(data[0]) + 0
    torch.testing.assert_close(inside, model(data[0]), rtol=1e-4, atol=1e-5)


def test_art_runs_dense_first_and_sparse_when_it_fine_tunes():
    torch.manual_seed(0)
    model = NETS["lenet5"]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    art = st.ART(
        model, optimizer, sparsity=0.8, dense_epochs=1, finetune_epochs=2, max_regularize_epochs=1
    )
    data, compute = images_of("lenet5"), st.SparseCompute(art, mode="sparse")
    ran = []
    while art.phase != "done":
        ran.append((art.phase, compute.runs_sparse))
        steps(model, optimizer, compute, data, 2)
        art.epoch_end(0.5, lambda model: 0.5)
    assert ran == [("dense", False), ("regularize", False), ("finetune", True), ("finetune", True)]


def test_a_value_that_something_looked_at_goes_on_as_an_ordinary_tensor():
    model, _, sparsifier = attached("resnet8", st.methods.static(sparsity=0.8))
    images, _ = images_of("resnet8")
    seen = []
    model.layer1.register_forward_hook(lambda module, given, out: seen.append(out.abs().max()))
    with st.SparseCompute(sparsifier, mode="sparse"):
        hooked = model(images) + 0
    assert seen[0] > 0
    torch.testing.assert_close(hooked, model(images), rtol=1e-4, atol=1e-4)


def test_a_change_in_place_reaches_the_value_and_its_views():
    model, _, sparsifier = attached("lenet5", st.methods.static(sparsity=0.8))
    with st.SparseCompute(sparsifier, mode="sparse"):
        out = model.conv1(images_of("lenet5")[0])
        before = out.clone()
        out[:, :3] += 1
        out.view(-1).mul_(2)
        after = out + 0
    before[:, :3] += 1
    torch.testing.assert_close(after, before * 2)


def test_a_backward_hook_on_a_module_is_an_error_and_never_a_wrong_gradient():
    model, _, sparsifier = attached("resnet8", st.methods.static(sparsity=0.8))
    model.layer1.register_full_backward_hook(lambda module, given, out: None)
    images, _ = images_of("resnet8")
    with st.SparseCompute(sparsifier, mode="sparse"), pytest.raises(RuntimeError):
        model(images)


def test_memory_is_used_again():
    model, optimizer, sparsifier = attached("resnet8", st.methods.static(sparsity=0.8))
    data, compute = images_of("resnet8"), st.SparseCompute(sparsifier, mode="sparse")
    made = []
    for count in (2, 5):
        steps(model, optimizer, compute, data, count)
        free = compute._network.buffers._free
        made.append(sum(len(arrays) for arrays in free.values()))
    assert made[0] == made[1]


def test_wrong_arguments_are_refused_in_one_sentence():
    model, _, sparsifier = attached("mlp", st.methods.static(sparsity=0.8))
    with pytest.raises(TypeError, match="engine must be a Sparsifier"):
        st.SparseCompute(model)
    with pytest.raises(ValueError, match="mode must be one of measured, fixed, sparse"):
        st.SparseCompute(sparsifier, mode="always")
