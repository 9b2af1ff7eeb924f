"""The faults that ``make mutants`` puts into the code."""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_can_be_put_into_the_code(mutant: Mutant) -> None:
    """Its text is there, once, and makes a difference; so do the tests that it names."""
    source = (ROOT / "siteconfig" / f"{mutant.module}.py").read_text()
    assert source.count(mutant.found) == 1
    assert mutant.found != mutant.replaced
    compile(source.replace(mutant.found, mutant.replaced), mutant.module, "exec")
    assert all((ROOT / file).exists() for file in mutant.tests_to_run())
