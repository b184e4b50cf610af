"""The CLMM network: an encoder per modality, quality-guided attention, the dual branch and its heads."""
