"""Training data: hearts, tissues, contrasts, augmentation, batches."""
