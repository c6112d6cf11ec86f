"""wav2vec 2.0 in JAX and Flax."""
