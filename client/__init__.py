"""The ClientApp of a wearable host: which devices it serves, and its answers to the server."""
