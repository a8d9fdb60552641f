"""Compiled loops for the CPU: programs run on rows of samples, by all threads of torch.

A *panel* holds some samples as rows of 256 bytes: row r is one number of each of them, a feature,
a hidden unit, a parameter. A program (see :mod:`maskedflow.staircase.program`) works on such rows,
and one panel after another is taken by whichever thread is free.
"""

from . import threads  # noqa: F401 - from now on, forked children compute alone
from .codes import Activation, Code, Kernel, Map

__all__ = ["GROUP", "Activation", "Code", "Kernel", "Map"]

#: Rows that a product computes at a time, whose sums stay in registers. The products of a program
#: come in groups of so many, and the kernel's buffers hold one.
GROUP = 6
