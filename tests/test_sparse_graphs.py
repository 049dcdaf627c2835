"""Sparse training under torch.compile and torch.export: operators, graphs, results."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch._dynamo.backends.debugging import aot_eager
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain import models
from sparsetrain.compute import ops
from tests.kernel_tools import built

SPARSE = {torch.ops.sparsetrain.conv2d.default, torch.ops.sparsetrain.linear.default}


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()


def attached(name="lenet5", method=None, *, last=False, **how):
    torch.manual_seed(0)
    model = models.create(name, num_classes=5, in_channels=3, image_size=16)
    model = model.to(memory_format=torch.channels_last) if last else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = st.Sparsifier(model, optimizer, method or st.methods.static(sparsity=0.8))
    return model, sparsifier, st.SparseCompute(sparsifier, **{"mode": "sparse", **how})


def compiled(model):
    """The model, and the functions of each graph that was made of it."""
    graphs = []

    def backend(graph, example):
        graphs.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
        return aot_eager(graph, example)

    return torch.compile(model, backend=backend, fullgraph=True), graphs


def sparse_ones(functions):
    return sum(function in SPARSE for function in functions)


def drawn(*shape):
    return torch.randn(shape, requires_grad=True)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_the_convolution_is_a_sound_operator(stride, bias):
    torch.manual_seed(0)
    weight, mask = drawn(5, 3, 3, 3), torch.rand(5, 3, 3, 3) < 0.3
    images = drawn(4, 3, 9, 7) if bias else torch.randn(4, 9, 7, 3).permute(0, 3, 1, 2)
    given = (weight, mask, drawn(5) if bias else None, stride, [1, 1])
    torch.library.opcheck(ops.conv2d, (images.requires_grad_(), *given))


def test_the_linear_layer_is_a_sound_operator():
    torch.manual_seed(0)
    inputs = (drawn(7, 6), drawn(5, 6), torch.rand(5, 6) < 0.4, drawn(5))
    torch.library.opcheck(ops.linear, inputs)


@pytest.mark.parametrize(("stride", "padding"), [(1, (1, 1)), (2, (0, 2)), (3, (1, 0))])
def test_the_convolution_is_that_of_the_masked_weight(stride, padding):
    torch.manual_seed(0)
    images, weight, bias = drawn(19, 4, 11, 8), drawn(6, 4, 3, 2), drawn(6)
    mask = torch.rand(weight.shape) < 0.4
    exact = [x.detach().double().requires_grad_() for x in (images, weight, bias)]
    wanted = F.conv2d(exact[0], exact[1] * mask, exact[2], stride, padding)
    found = ops.conv2d(images, weight, mask, bias, stride, list(padding))
    grad = torch.randn_like(found)
    wanted.backward(grad.double())
    found.backward(grad)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip((images, weight, bias), exact, strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-5, atol=2e-5)
    assert not weight.grad[~mask].any()


def test_an_operator_follows_its_mask_and_a_new_one_in_the_same_memory():
    images, weight = torch.randn(3, 4), torch.randn(5, 4)
    for _ in range(4):  # each mask dies before the next is made
        mask = torch.rand(5, 4) < 0.5
        found = ops.linear(images, weight, mask, None)
        torch.testing.assert_close(found, F.linear(images, weight * mask))
        mask.logical_not_()
        found = ops.linear(images, weight, mask, None)
        torch.testing.assert_close(found, F.linear(images, weight * mask))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["lenet5", "resnet8"])
def test_a_compiled_model_runs_sparse_with_the_dense_network_s_results(name, last):
    model, sparsifier, compute = attached(name, last=last)
    images, labels = torch.randn(20, 3, 16, 16), torch.randint(0, 5, (20,))
    dense = copy.deepcopy(model)
    wanted = F.cross_entropy(dense(images), labels)
    wanted.backward()
    fast, graphs = compiled(model)
    with compute:
        loss = F.cross_entropy(fast(images), labels)
    loss.backward()
    assert [sparse_ones(graph) for graph in graphs] == [len(sparsifier.weights)]
    torch.testing.assert_close(loss, wanted)
    for (key, mine), theirs in zip(model.named_parameters(), dense.parameters(), strict=True):
        mask = sparsifier.masks.get(key, torch.ones_like(mine, dtype=torch.bool))
        torch.testing.assert_close(mine.grad, theirs.grad * mask, rtol=1e-4, atol=1e-5)


def test_a_changed_mask_is_followed_without_another_graph():
    model, sparsifier, compute = attached()
    images = torch.randn(6, 3, 16, 16)
    fast, graphs = compiled(model)
    with compute:
        fast(images).sum().backward()
    sparsifier.masks["fc1.weight"][:] = True
    before = model.fc1.weight.grad.count_nonzero()
    model.fc1.weight.grad = None
    with compute:
        fast(images).sum().backward()
    assert model.fc1.weight.grad.count_nonzero() > 2 * before
    assert len(graphs) == 1


def test_a_step_before_an_update_has_a_dense_graph():
    method = st.methods.create("rigl", sparsity=0.8, total_steps=40, update_every=2)
    model, sparsifier, compute = attached(method=method)
    optimizer = sparsifier._optimizer
    images = torch.randn(6, 3, 16, 16)
    fast, graphs = compiled(model)
    for _ in range(4):
        with compute:
            loss = fast(images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert [sparse_ones(graph) for graph in graphs] == [len(sparsifier.weights), 0]


@built
def test_choices_are_made_while_a_graph_is_made_and_kept():
    model, sparsifier, compute = attached(mode="measured")
    known = {}
    for names in (list(sparsifier.weights), ["fc1.weight"]):
        fast, graphs = compiled(model)
        with compute:
            fast(torch.randn(6, 3, 16, 16))
        made = compute.choices
        assert {key.split()[0] for key in made} == set(sparsifier.weights)
        assert all(key.endswith(" alone") for key in made)
        assert sparse_ones(graphs[0]) == sum(how == "sparse" for how in made.values())
        if known:
            assert made == known
        known = {key: "sparse" if key.split()[0] in names[-1:] else "dense" for key in made}
        compute = st.SparseCompute(sparsifier, mode="measured", known=known)
        torch._dynamo.reset()


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_program_has_the_operators_and_loads_again(strict):
    model, sparsifier, compute = attached()
    model.eval()
    images, size = torch.randn(6, 3, 16, 16), torch.export.Dim("size", min=2)
    with compute:
        program = torch.export.export(model, (images,), strict=strict, dynamic_shapes=({0: size},))
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert sparse_ones(calls) == len(sparsifier.weights)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    other = torch.randn(19, 3, 16, 16)
    torch.testing.assert_close(torch.export.load(file).module()(other), model(other))


def test_a_context_inside_a_compiled_function_runs_dense_and_right():
    model, _, compute = attached()
    images = torch.randn(6, 3, 16, 16)

    @torch.compile(backend="aot_eager")
    def loss():
        with compute:
            return model(images).square().mean()

    torch.testing.assert_close(loss(), model(images).square().mean())
