"""Train a network of `sparsetrain.models` on a data set of `sparsetrain.data` with any method."""
