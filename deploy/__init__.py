"""How Valkyr is shipped: the image, the manifests, and what holds them against the code."""
