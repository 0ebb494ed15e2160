"""How much cheaper the NRM's latent likelihood is by one forward-mode pass than by rendering."""

from experiments import lab
from experiments.benchmarks import nrm

if __name__ == "__main__":
    lab.main(nrm.main, nrm.Config, nrm.__doc__)
