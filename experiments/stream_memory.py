"""Does screening many images take more memory, or more time an image, than screening few?"""

from experiments.benchmarks import streaming
from experiments.lab import common

if __name__ == "__main__":
    common.run(streaming.main, streaming.Config, streaming.__doc__)
