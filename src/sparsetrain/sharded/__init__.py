"""Tensors that lie on several ranks in rows, as FSDP2 leaves parameters, and ranking over them."""

from .layout import add_up as add_up
from .layout import any_sharded as any_sharded
from .layout import check_layout as check_layout
from .layout import count_true as count_true
from .layout import full as full
from .layout import full_state as full_state
from .layout import gather as gather
from .layout import is_sharded as is_sharded
from .layout import local as local
from .layout import place as place
from .layout import place_state as place_state
from .layout import reshard_ as reshard_
from .layout import row_wise as row_wise
from .layout import whole as whole
from .layout import wrap as wrap
from .ranking import Group as Group
from .ranking import keep_largest as keep_largest
from .ranking import kth_smallest as kth_smallest
from .state import load_model_state_ as load_model_state_
from .state import load_optimizer_state_ as load_optimizer_state_
from .state import model_state as model_state
from .state import optimizer_state as optimizer_state
