"""Fine-tuning recipes: what `librispeech.recipe` holds in common, and the numbers of each."""
