"""Fine-tuning on one's own speech: targets, augmentation, training, and what decides."""
