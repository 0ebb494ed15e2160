"""The time of the NRM's latent likelihood by one forward-mode pass, against rendering."""

from experiments import lab
from experiments.benchmarks import nrm

if __name__ == "__main__":
    lab.main(nrm.main, nrm.Config, nrm.__doc__)
