"""The runtime: images of any size in, depth in the image's pixels and patch statistics out."""
