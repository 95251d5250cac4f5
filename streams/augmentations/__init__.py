"""Augmentations: random changes of training images, batched, with draws of their own per sample."""
