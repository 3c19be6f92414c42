"""The table of mutants fits the sources; `nox -s mutants` plants them."""

import ast

import pytest
from mutants import BUNDLES, CHECKS, DEFINITIONS, FEW, INPUTS, KERNELS, MUTANTS, ROOT, WALKS

every_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


def test_names_are_their_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_the_few_are_of_every_kind():
    kinds = (KERNELS, DEFINITIONS, WALKS, CHECKS, BUNDLES, INPUTS)
    names = [{mutant.name for mutant in kind} for kind in kinds]
    assert set(FEW) <= set().union(*names)
    assert all(set(FEW) & kind for kind in names)


@every_mutant
def test_a_mutant_can_be_planted(mutant):
    text = (ROOT / mutant.file).read_text()
    assert mutant.planted(text) != text
    with pytest.raises(ValueError, match="out of date"):
        mutant.planted(text.replace(mutant.before, ""))
    with pytest.raises(ValueError, match="occurs 2 times"):
        mutant.planted(text + mutant.before)


@every_mutant
def test_what_is_compiled_is_built_again(mutant):
    assert bool(mutant.compiled) == mutant.file.startswith("_core/")
    for module in mutant.compiled:
        assert (ROOT / "_core" / f"{module}.pyx").is_file()


@every_mutant
def test_the_tests_that_are_named_exist(mutant):
    assert mutant.tests
    for test in mutant.tests:
        file, _, function = test.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not function or function in names, test
