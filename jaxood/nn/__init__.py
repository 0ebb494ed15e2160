"""Building blocks of models: layers, convolutions, BatchNorm statistics, likelihoods."""
