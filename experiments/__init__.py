"""One file an experiment: its `experiment()` says everything that a run depends on."""
