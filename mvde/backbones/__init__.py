"""Backbones: vision towers that hand back one feature map per tap."""
