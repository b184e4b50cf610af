"""The wearable host's daemon: takes samples, labels and wishes over gRPC, and keeps them on this machine."""
