"""Masked autoregressive flows with the univariates of the tests."""

from __future__ import annotations

from strategies import UNIVARIATES

from .entry import OPTIONS, Entry

FLOWS = {
    "MADE": Entry("MADE", takes=OPTIONS - {"transforms"}),
    "MAF": Entry("MAF"),
    "MAF, batch norm": Entry("MAF", {"batch_norm": True}),
    "MAF, randperm": Entry("MAF", {"randperm": True}, lacks=frozenset({"order"})),
    **{f"MAF, {name}": Entry("MAF", options) for name, options in UNIVARIATES.items() if options},
}
