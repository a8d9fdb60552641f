"""Our flows where a library asks for zuko's, as pocomc does.

Import this module, and `isinstance(flow, zuko.flows.Flow)` is true of a flow of ours, too. Nothing
else changes, neither in zuko nor here. Where zuko is not installed, nobody asks.
"""

from __future__ import annotations

from maskedflow.flows import Flow

try:
    from zuko.lazy import Flow as ZukoFlow
except ImportError:
    pass
else:
    ZukoFlow.register(Flow)
