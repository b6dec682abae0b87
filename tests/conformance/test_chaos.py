"""A short chaos drill; tests/fault/chaos.py tells what it promises, and makes a long one by hand."""
import os, sys

import pytest

from conftest import BUILD, ROOT

sys.path.insert(0, str(ROOT / "tests/fault"))
from chaos import Drill  # noqa: E402


@pytest.mark.skipif("asan" in str(BUILD), reason="a sanitizer needs more than the hostile plugin may have")
def test_nothing_is_wrong_lost_or_untold_whatever_dies(folder):
    drill = Drill(folder, seed=int(os.environ.get("CHAOS_SEED", 7)), pace_s=2, load_pause_s=0.02)
    try:
        drill.run(seconds=8, kernel_every_s=3)
        drill.report()
        assert drill.load.wrong == [] and drill.missing == []
        assert drill.rows["kill"][0] and drill.rows["kernel kill"][0] and drill.rows["upgrade of the kernel"][0] and sum(drill.load.acked.values())
    finally:
        drill.close()
