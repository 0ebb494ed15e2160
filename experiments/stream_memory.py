"""Does screening many images take more memory, or more time an image, than screening few?"""

from experiments import lab
from experiments.benchmarks import streaming

if __name__ == "__main__":
    lab.main(streaming.main, streaming.Config, streaming.__doc__)
