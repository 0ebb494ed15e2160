"""The models of jaxood as a PyTorch user writes them, with the weights of jaxood's.

They are what the benchmarks time jaxood against. PyTorch is imported here only, and is optional.
"""

import importlib.util

ABSENT = 'PyTorch is not installed: pip install "jaxood[peer]"'


def installed() -> bool:
    """Tell whether PyTorch can be imported; nothing is imported."""
    return importlib.util.find_spec("torch") is not None
