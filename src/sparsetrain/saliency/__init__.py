"""Pruning before training: SNIP, GraSP and SynFlow score a network from a few batches or none.

The network is scored through a functional call on copies of its tensors: weights, gradients,
running statistics, training flags and torch's random state are as before.
"""

from .gradient_flow import grasp as grasp
from .gradient_flow import grasp_scores as grasp_scores
from .sensitivity import snip as snip
from .sensitivity import snip_scores as snip_scores
from .synaptic_flow import synflow as synflow
from .synaptic_flow import synflow_scores as synflow_scores
