"""What measured quality counts for: from Hopkins values, averaged over devices, to the modalities' shares."""

from collections.abc import Mapping


def quality_weights(hopkins_by_modality: Mapping[str, float], smallest: float = 0.02) -> dict[str, float]:
    """Return q, summing to 1: each modality's Hopkins value above chance, `max(H - 0.5, smallest)`, normalised."""
    above = {name: max(value - 0.5, smallest) for name, value in hopkins_by_modality.items()}
    total = sum(above.values())
    return {name: value / total for name, value in above.items()}
