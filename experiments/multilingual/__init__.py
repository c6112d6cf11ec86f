"""Pretraining on many languages at once, and fine-tuning on one."""
