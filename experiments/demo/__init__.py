"""The whole of wav2vec 2.0 in minutes on two CPU cores, on synthetic speech; `w2v2 demo` runs all of it."""
