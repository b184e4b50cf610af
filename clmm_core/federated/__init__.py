"""What crosses the wire and how it is summed: frozen messages, weighted sums per part, server optimisers. Arrays only."""
