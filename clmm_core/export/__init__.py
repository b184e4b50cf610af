"""Turn the model of a finished run into one file that recognises without PyTorch."""
