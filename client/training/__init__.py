"""Training apart from the ClientApp, for which Flower starts a process a message: one that loads PyTorch takes seconds to start."""
