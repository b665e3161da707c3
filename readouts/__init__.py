"""Graph readouts whose output does not change, not by one bit, when the nodes are shuffled."""

from readouts.functional import global_add_pool, global_max_pool, global_mean_pool, readout
from readouts.segments import Segments

__all__ = ["Segments", "global_add_pool", "global_max_pool", "global_mean_pool", "readout"]
__version__ = "0.1.0"
