"""The tables of docs/trace.md about gradient stops, but for times: computed again."""

import re
from pathlib import Path

import refnet
from refnet.render.facts import FREEZE_COLUMNS, freeze_rows
from refnet.trace import freeze, freeze_points

TEXT = (Path(__file__).parents[1] / "docs" / "trace.md").read_text(encoding="utf-8")
TIMES = ("backward", "of the first")


def table(architecture):
    """The rows of a table, by column."""
    shown = re.search(rf"<!-- table: {architecture} -->\n((?:\|.*\n)+)", TEXT)[1]
    head, _, *rows = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in shown.splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_what_a_stop_costs_and_hides(monkeypatch):
    architecture = "resnet18_conv4"
    monkeypatch.setattr(freeze, "_seconds", lambda *arguments: 1.0)
    said = table(architecture)
    nets = {point: refnet.build(architecture, freeze_at=point) for point in (0, 2, 3, 4)}
    given = refnet.fill.params(nets[0]) | refnet.fill.inputs(nets[0])
    points = freeze_points(nets.__getitem__, nets, given, refnet.fill.output_gradients)
    found = [dict(zip(FREEZE_COLUMNS, row, strict=True)) for row in freeze_rows(points)]
    for ours, theirs in zip(found, said, strict=True):
        assert {name: ours[name] for name in theirs if name not in TIMES} == {
            name: cell for name, cell in theirs.items() if name not in TIMES
        }


def test_sentences_are_drawn_from_the_tables():
    prose = " ".join(TEXT.split())
    small, wide = table("resnet18_conv4"), table("resnet50_conv4")
    number = {name: [float(row[name].split()[0]) for row in small] for name in small[0]}
    for said in (
        f"hold {small[1]['parameters']} of the parameters",
        f"{small[1]['multiply-adds']} multiply-adds instead of {small[0]['multiply-adds']}",
        f"({number['multiply-adds'][1] / number['multiply-adds'][0]:.2f} of them)",
        f"in {small[1]['of the first']} of the time",
        f"{small[0]['held']} are held at once",
        f"{small[1]['gradient norm']} of the norm of the whole",
        f"{100 * (number['gradient norm'][1] / 100) ** 2:.1f} % of its square",
        f"({small[2]['of the first']} of the first)",
        f"{small[2]['parameters']} of the parameters and {small[2]['gradient norm']} of the norm",
    ):
        assert said in prose, said
    assert number["of the first"] == [round(ms / number["backward"][0], 2) for ms in number["backward"]]
    adds, held = ([float(row[name].split()[0]) for row in wide[:2]] for name in ("multiply-adds", "held"))
    saved = [1 - after / before for before, after in (adds, held)]
    assert f"{saved[0]:.2f} of the multiply-adds and {saved[1]:.2f} of the memory" in prose
    net = refnet.build("resnet18_conv4")
    kernels = {name: shape[2] for name, shape in net.params.items() if len(shape) == 5}
    assert {kernels[name] for name in kernels if name.startswith(("conv1", "res2"))} == {1}
    assert max(kernels[name] for name in kernels if name.startswith("res3")) == 3
