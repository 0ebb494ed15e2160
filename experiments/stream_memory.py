"""The memory and the time an image of screening many images, against screening few."""

from experiments import lab
from experiments.benchmarks import streaming

if __name__ == "__main__":
    lab.main(streaming.main, streaming.Config, streaming.__doc__)
