"""A federation on real machines: its certificates and keys, its SuperLink, and what is wrong with either. No torch, no Ray."""
