"""How much cheaper the NRM's latent likelihood is by one forward-mode pass than by rendering."""

from experiments.benchmarks import nrm
from experiments.lab import common

if __name__ == "__main__":
    common.run(nrm.main, nrm.Config, nrm.__doc__)
