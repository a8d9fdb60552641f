"""Flows that differ from MAF in their map of one feature."""

from __future__ import annotations

from .entry import Entry

FLOWS = {
    "NSF": Entry("NSF", {"bins": 4}),
    "NSF, coupling": Entry("NSF", {"bins": 3, "passes": 2}, lacks=frozenset({"order"})),
    "NCSF": Entry("NCSF", {"bins": 4}, lacks=frozenset({"identity", "line"}), circular=True),
    "SOSPF": Entry("SOSPF", {"degree": 2, "polynomials": 2}),
    "BPF": Entry("BPF", {"degree": 3}),
    "NAF": Entry(
        "NAF",
        {"signal": 3, "network": {"hidden_features": (24, 24)}},
        lacks=frozenset({"identity"}),
    ),
    "UNAF": Entry("UNAF", {"signal": 3, "network": {"hidden_features": (6,)}}),
    "GF": Entry(
        "GF",
        {"components": 4},
        takes=frozenset({"transforms", "hidden_features", "activation", "generator"}),
        lacks=frozenset({"identity", "order"}),
    ),
}
