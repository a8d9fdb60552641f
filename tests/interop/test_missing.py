"""Bridges to libraries that are not installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

import maskedflow as mf


@pytest.mark.skipif(find_spec("sbi") is not None, reason="sbi is installed")
@pytest.mark.parametrize("name", mf.interop.sbi.__all__)
def test_a_library_that_is_missing_is_told_with_its_extra(name: str) -> None:
    with pytest.raises(ImportError, match=r"^sbi is not installed: pip install maskedflow\[sbi\]$"):
        getattr(mf.interop.sbi, name)()
