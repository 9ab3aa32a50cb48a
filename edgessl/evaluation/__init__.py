"""How good features and classifiers are: kNN, linear probe, fine-tuning."""
