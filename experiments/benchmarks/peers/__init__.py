"""The models of jaxood as a PyTorch user writes them, with the weights of jaxood's.

They are what the benchmarks time jaxood against. PyTorch is imported here only, and is optional:
``pip install 'jaxood[peer]'``.
"""
