"""Plots: each draws into the figure or axes that it is given."""
