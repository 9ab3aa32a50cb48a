"""EdgeSSL: from unlabeled images to a small model proven on your own device."""

__version__ = "0.1.0"
