"""Runtime: images of any size to depth at the image's resolution and patch statistics."""
