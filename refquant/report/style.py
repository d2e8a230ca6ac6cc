"""The looks of a report: colours for light and dark, a column that is readable, nothing from the network."""

from refquant.report.figures import KINDS

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60666d; --line: #dfe3e8; --paper: #ffffff;
  --tile: #f5f7f9; --bar: #9ec5f4; --edge: #10498a; --k0: #1f6fd0; --k1: #d9770a; --k2: #188a52; --k3: #b8336a;
  --k4: #7351c9; --k5: #0f8f9c; --k6: #8a6d1d; --k7: #555e68; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa3ac; --line: #333a42; --paper: #15181c;
  --tile: #1e2329; --bar: #3a6ca8; --edge: #d6e8fc; --k0: #6aa9f5; --k1: #f2a649; --k2: #55c48c; --k3: #ee79a8;
  --k4: #ae94f2; --k5: #4fc6d2; --k6: #cfb45b; --k7: #a4adb6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 32px 24px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 40px 0 8px; }
p { margin: 4px 0 12px; } .soft, .none { color: var(--soft); }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { background: var(--tile); border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; font-size: 24px; font-weight: 600; } .tile span { color: var(--soft); font-size: 13px; }
.note { border-left: 3px solid var(--k1); padding: 4px 12px; background: var(--tile); }
svg { display: block; } svg.chart { width: 100%; height: auto; } .grid { stroke: var(--line); }
.tick { fill: var(--soft); font-size: 11px; } polyline { fill: none; stroke-width: 1.6; }
svg.histogram { width: 132px; height: 30px; } svg.large { width: 100%; height: auto; }
.histogram rect { fill: var(--bar); } .histogram polyline { stroke: var(--edge); stroke-width: 1.2; }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 20px; }
.worst figure { margin: 0; } figcaption { font-size: 12.5px; color: var(--soft); overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--soft); }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 6px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { text-align: right; color: var(--soft); font-weight: 500; position: sticky; top: 0; background: var(--paper); }
th, td { padding: 4px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
td { text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
""" + "".join(
    f".k{i} {{ stroke: var(--k{i}); }} circle.k{i} {{ fill: var(--k{i}); }} i.k{i} {{ background: var(--k{i}); }}\n"
    for i in range(KINDS)
)
