"""Data parallelism: one mesh axis, over the devices of one process or of many.

Computation follows data. Variables that `replicate` has put on a mesh are trained and scored on
all of its devices: `train.fit`, `train.population_statistics` and the scores look at where their
variables lie. Plain variables mean one device. The same seed gives the same numbers up to rounding,
however many devices there are.

Every process runs the same program on its own devices, and process 0 alone writes. What depends on
a clock or on files is decided there (`on_writer`): processes that disagree on what to compute wait
for each other for ever.

What processes tell each other runs no code (`jaxood.parallel.messages`), but no process proves who
it is: several hosts belong on a network that is trusted.
"""

from jaxood.parallel import messages
from jaxood.parallel.devices import (
    AXIS,
    local,
    map_rows,
    mesh,
    mesh_of,
    replicate,
    shard,
    split_rows,
    whole,
)
from jaxood.parallel.processes import (
    agree,
    is_writer,
    lock,
    lost_another,
    on_writer,
    start,
    wait_for_all,
)

__all__ = [
    "AXIS",
    "agree",
    "is_writer",
    "local",
    "lock",
    "lost_another",
    "map_rows",
    "mesh",
    "mesh_of",
    "messages",
    "on_writer",
    "replicate",
    "shard",
    "split_rows",
    "start",
    "wait_for_all",
    "whole",
]
