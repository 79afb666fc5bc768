"""mvde: metric depth and per-patch depth statistics from one ordinary camera."""
