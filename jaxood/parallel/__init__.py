"""Data parallelism: one mesh axis over the devices of one or several processes.

Computation follows data. Variables that `replicate` has put on a mesh are trained and scored on
all of its devices: `train.fit`, `train.population_statistics` and the scores look up where their
variables lie. Plain variables mean one device. The same seed gives the same numbers, up to
rounding, on any number of devices.

Every process runs the same program on its own devices, and process 0 alone writes. Process 0 also
decides whatever depends on a clock or on files (`on_writer`): processes that disagree on what to
compute would wait for each other for ever.

Messages between processes never run code (`jaxood.parallel.messages`), but processes do not
authenticate each other: use several hosts only on a network that you trust.
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
