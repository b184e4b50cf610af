"""The stock way, to compare with: a Flower app as its user would write it, with a SuperNode a device and Flower's own `FedAvg`."""
