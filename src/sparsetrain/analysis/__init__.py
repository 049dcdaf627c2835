"""What a run or a network can be asked: pure functions on masks, weights and traces."""

from .classes import class_accuracy as class_accuracy
from .classes import class_counts as class_counts
from .connections import churn as churn
from .connections import overlap as overlap
from .connections import survival as survival
from .convergence import reached as reached
from .convergence import reached_at_each as reached_at_each
from .density import LayerDensity as LayerDensity
from .density import layers as layers
from .exploration import expected_exploration as expected_exploration
from .exploration import exploration_rate as exploration_rate
from .flops import TRAIN_FACTOR as TRAIN_FACTOR
from .flops import ForwardFlops as ForwardFlops
from .flops import count_forward as count_forward
from .ledger import Ledger as Ledger
from .ledger import training_ledger as training_ledger
from .pareto import front as front
from .profiles import magnitude_profile as magnitude_profile
from .profiles import mean_by_rank as mean_by_rank
from .profiles import mean_by_share as mean_by_share
from .profiles import relative_ranks as relative_ranks
from .trace import Layers as Layers
from .trace import Trace as Trace
from .trace import load_trace as load_trace
from .units import DeadUnits as DeadUnits
from .units import dead_units as dead_units
