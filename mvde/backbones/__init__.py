"""Vision towers that return one feature map per tap."""
