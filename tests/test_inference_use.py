"""Compiling leaves the model alone, keeps its own weights, and refuses in a sentence."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain.inference import CompiledNetwork

from .inference_nets import Shared, TwoInputs, ViTBlock, trained_looking_
from .inference_tools import assert_same


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    conv = (nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))
    net = nn.Sequential(*conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    trained_looking_(net, sparsity=0.5)
    return net


def images(batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, 6, 6)


def compiled_small(model: nn.Module) -> CompiledNetwork:
    return st.compile_sparse(model, images(), choice="sparse")


def test_each_modules_mode_and_every_tensor_stay_as_they_were() -> None:
    model = small().train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    st.compile_sparse(model, images(), choice="model")
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_model_in_training_mode_is_compiled_for_evaluation() -> None:
    model = small().train()
    compiled = compiled_small(model)
    assert_same(compiled, model.eval(), images())


@pytest.mark.parametrize("choice", ["sparse", "dense"])
def test_later_training_does_not_reach_the_compiled_network(choice: st.inference.Choice) -> None:
    model = trained_looking_(ViTBlock(), sparsity=0.5)
    x = torch.randn(3, 3, 8, 8)
    compiled = st.compile_sparse(model, x, choice=choice)
    before = compiled(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(compiled(x), before)


def test_updated_takes_new_weights_and_masks() -> None:
    model, other = small(0), small(1)
    compiled = compiled_small(model)
    assert_same(compiled.updated(other), other, images(9))
    assert_same(compiled, model, images(9))


def test_updated_chooses_kernels_anew_if_told_to() -> None:
    dense, sparse = (trained_looking_(small(0), sparsity=s) for s in (0.0, 0.97))
    compiled = st.compile_sparse(dense, images(9), choice="dense")
    assert compiled.updated(sparse).choice == "dense"
    anew, alone = (
        compiled.updated(sparse, choice="sparse"),
        st.compile_sparse(sparse, images(9), choice="sparse"),
    )
    for one, other in ((anew.few, alone.few), (anew.many, alone.many)):
        assert one is not None and other is not None
        assert one.runner.packed == other.runner.packed != frozenset()
    assert_same(anew, sparse, images(9))
    with pytest.raises(ValueError, match="choice must be one of"):
        compiled.updated(sparse, choice="fastest")  # type: ignore[arg-type]


def test_updated_refuses_a_model_of_other_layers_by_name() -> None:
    compiled = compiled_small(small())
    wider = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), *list(small())[1:])
    longer = nn.Sequential(*small(), nn.Linear(4, 4))
    for other, words in (
        (wider, r"0\.weight of this model is torch.float32 \(7, 3, 3, 3\) on cpu, not .*\(6, 3, 3"),
        (nn.Sequential(*list(small())[:-1]), r"6\.weight of this model is missing"),
        (longer, r"has '7\.weight', which the compiled one had not"),
        (small().double(), r"0\.weight of this model is torch.float64"),
        (small().to("meta"), r"0\.weight of this model .* on meta"),
    ):
        for choice in (None, "sparse"):
            with pytest.raises(ValueError, match=words):
                compiled.updated(other, choice=choice)


def test_masks_count_as_zeros_and_the_model_keeps_its_weights() -> None:
    model = trained_looking_(Shared(), sparsity=0.0)
    masks = {n: torch.rand_like(p) < 0.4 for n, p in model.named_parameters() if p.dim() > 1}
    example = torch.randn(2, 4, 6, 6)
    compiled = st.compile_sparse(model, example, masks=masks, choice="sparse")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in masks:
                assert parameter.count_nonzero() == parameter.numel()
                parameter.mul_(masks[name])
    assert_same(compiled, model, torch.randn(9, 4, 6, 6))


def test_masks_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks\['0.weight'\] is of shape"):
        st.compile_sparse(small(), images(), masks={"0.weight": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match="no such parameter"):
        st.compile_sparse(small(), images(), masks={"conv.weight": torch.ones(1) > 0})


def test_weights_made_by_a_parametrization_are_read_when_compiling() -> None:
    model = small()
    torch.nn.utils.parametrizations.weight_norm(model[0])
    compiled = compiled_small(model)
    x = images(9)
    with torch.no_grad():
        wanted = model(x)
    torch.testing.assert_close(compiled(x), wanted, rtol=1e-5, atol=1e-5)


def test_a_float64_model_runs_dense() -> None:
    model = small().double()
    compiled = st.compile_sparse(model, images().double(), choice="sparse")
    x = images(9).double()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-12, atol=1e-12)
    assert {layer.kernel for layer in compiled.explain(1).layers} == {"dense"}


def test_results_have_no_gradient_and_inputs_may_want_one() -> None:
    x = images().requires_grad_()
    assert not compiled_small(small())(x).requires_grad


def test_wrong_inputs_are_refused_in_a_sentence() -> None:
    compiled = compiled_small(small())
    for wrong, words in (
        (images().double(), r"float32 tensor on the CPU .* got torch.float64 on cpu"),
        (images().to("meta"), "got torch.float32 on meta"),
        (images()[:, :2], r"must have shape \(batch, 3, 6, 6\) .* got \(3, 2, 6, 6\)"),
        (torch.randn(3, 3, 6, 7), r"got \(3, 3, 6, 7\)"),
        (torch.randn(()), r"got \(\)"),
        (3.0, "got 3.0"),
    ):
        with pytest.raises(ValueError, match=words):
            compiled(wrong)
    for call in (lambda: compiled(), lambda: compiled(images(), 2), lambda: compiled(z=images())):
        with pytest.raises(ValueError, match="the model takes"):
            call()


def test_inputs_of_different_batches_and_other_options_are_refused() -> None:
    model = trained_looking_(TwoInputs(), sparsity=0.3)
    example = {"x": torch.randn(3, 3, 5, 5), "y": torch.randn(3, 5), "scale": 2.0}
    compiled = st.compile_sparse(model, example, choice="sparse")
    assert_same(compiled, model, torch.randn(4, 3, 5, 5), y=torch.randn(4, 5), scale=2.0)
    with pytest.raises(ValueError, match="with the batch 4 of the other inputs"):
        compiled(torch.randn(4, 3, 5, 5), y=torch.randn(5, 5), scale=2.0)
    with pytest.raises(ValueError, match=r"argument 2.0, got 3.0"):
        compiled(torch.randn(4, 3, 5, 5), y=torch.randn(4, 5), scale=3.0)
    with pytest.raises(ValueError, match=r"argument 2.0, got 1.0"):
        compiled(torch.randn(4, 3, 5, 5), y=torch.randn(4, 5))


def test_wrong_arguments_of_compile_are_refused() -> None:
    with pytest.raises(ValueError, match="choice must be one of measure"):
        st.compile_sparse(small(), images(), choice="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="example_input must be a tensor, a tuple"):
        st.compile_sparse(small(), [images()])
    with pytest.raises(ValueError, match="first dimension is the batch"):
        st.compile_sparse(small(), torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"has no rows\. Give a batch"):
        st.compile_sparse(small(), images(0))
    with pytest.raises(ValueError, match=r"0\.weight is on meta"):
        st.compile_sparse(small().to("meta"), images())


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x * self.calls


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.fc(x.reshape(3, 4)))


def test_what_cannot_be_traced_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"torch\.export cannot trace Decides"):
        st.compile_sparse(Decides(), images())
    with pytest.raises(ValueError, match="changes its buffer 'calls'"):
        st.compile_sparse(Counts(), images())


def test_a_model_of_fixed_batch_takes_that_one() -> None:
    model = trained_looking_(FixedBatch(), sparsity=0.3)
    compiled = st.compile_sparse(model, torch.randn(3, 4), choice="sparse")
    assert_same(compiled, model, torch.randn(3, 4))
    with pytest.raises(ValueError, match=r"must have shape \(3, 4\)"):
        compiled(torch.randn(6, 4))
    with pytest.raises(ValueError, match="3, which the model fixes"):
        compiled.explain(6)


def test_what_the_tracer_says_of_a_trace_that_is_made_otherwise_is_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger, text = logging.getLogger("torch.fx.experimental.symbolic_shapes"), io.StringIO()
    handler = logging.StreamHandler(text)
    logger.addHandler(handler)
    try:
        with pytest.raises(ValueError, match=r"torch\.export cannot trace Decides"):
            st.compile_sparse(Decides(), images())
        assert capsys.readouterr().err == text.getvalue() == ""
        logger.warning("shown")
        assert text.getvalue() == "shown\n"
    finally:
        logger.removeHandler(handler)


def test_a_compiled_network_is_its_own_copy_and_cannot_be_pickled() -> None:
    model = small()
    compiled = compiled_small(model)
    assert_same(copy.deepcopy([compiled])[0], model, images())
    with pytest.raises(TypeError, match="Save the model, and compile it"):
        pickle.dumps(compiled)


def test_importing_the_library_does_not_import_the_tracer() -> None:
    code = "import sys, sparsetrain; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
