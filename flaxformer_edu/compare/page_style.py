"""How the page of a report looks: its style sheet."""

STYLE = """
:root {
  --paper: #ffffff; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --shade: #f3f5f7;
  --good: #1f5f9e; --bad: #b2182b;
  --e0: #2166ac; --e1: #4393c3; --e2: #92c5de; --e3: #d1e5f0;
  --e4: #fddbc7; --e5: #f4a582; --e6: #d6604d; --e7: #b2182b;
  --on0: #ffffff; --on1: #000000; --on6: #000000; --on7: #ffffff; --middle: #000000;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e6e9ec; --soft: #9aa5b1; --line: #363d45; --shade: #1e2328;
    --good: #74b3e8; --bad: #ff9d76;
    --e0: #74b3e8; --e1: #3f86c4; --e2: #2a5c8c; --e3: #1e3a56;
    --e4: #5a2d22; --e5: #96452d; --e6: #d6703f; --e7: #ffae70;
    --on0: #000000; --on1: #000000; --on6: #000000; --on7: #000000; --middle: #ffffff;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 3rem; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
.note, small { color: var(--soft); font-size: .85em; }
header { padding: 1rem; border-left: 6px solid; background: var(--shade); }
header.agrees { border-color: var(--good); } header.agrees h1 { color: var(--good); }
header.differs { border-color: var(--bad); } header.differs h1 { color: var(--bad); }
table { border-collapse: collapse; }
th { font-weight: normal; text-align: left; }
.scroll { overflow-x: auto; }
.heat { border-collapse: separate; border-spacing: 2px; font-size: 12px; line-height: 1.2; }
.heat th { padding: 0 .5rem 0 0; min-width: 8rem; max-width: 16rem; overflow-wrap: anywhere; }
.heat th:first-child { position: sticky; left: 0; background: var(--paper); }
.heat .stack th { color: var(--soft); padding-top: .5rem; }
.heat .stack th + th { min-width: 0; padding-right: 0; text-align: center; }
.heat td { width: 28px; min-width: 22px; height: 22px; padding: 0; text-align: center; }
.heat a { display: block; padding: 4px 0; color: inherit; text-decoration: none; font-size: 11px; }
.e0 { background: var(--e0); color: var(--on0); } .e1 { background: var(--e1); color: var(--on1); }
.e2 { background: var(--e2); color: var(--middle); } .e3 { background: var(--e3); color: var(--middle); }
.e4 { background: var(--e4); color: var(--middle); } .e5 { background: var(--e5); color: var(--middle); }
.e6 { background: var(--e6); color: var(--on6); } .e7 { background: var(--e7); color: var(--on7); }
.inf { background: var(--ink); color: var(--paper); }
.none { background: none; border: 1px dashed var(--line); }
.heat .first, .legend .first { outline: 3px solid var(--ink); outline-offset: -1px; font-weight: bold; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem .8rem; padding: 0; margin: .8rem 0 0; list-style: none;
  font-size: 12px; }
.legend i { display: inline-block; width: 14px; height: 14px; margin-right: 4px; vertical-align: -2px; }
.rows { width: 100%; font-size: 13px; }
.rows thead th { position: sticky; top: 0; background: var(--paper); border-bottom: 2px solid var(--line); z-index: 1; }
.rows th, .rows td { padding: .3rem .5rem; vertical-align: top; border-bottom: 1px solid var(--line); }
.rows tbody th { overflow-wrap: anywhere; }
.rows small { display: block; }
.rows small span { white-space: nowrap; margin-left: .5rem; }
.rows .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.rows .verdict { white-space: nowrap; }
.rows .differs .verdict { color: var(--bad); font-weight: bold; }
.rows .agrees .verdict { color: var(--good); }
.rows tr.first { background: var(--shade); box-shadow: inset 4px 0 var(--bad); }
.rows tr:target { outline: 2px solid var(--good); }
.badge { display: inline-block; margin-left: .5rem; padding: 0 .4rem; border: 1px solid; color: var(--bad);
  font-size: 11px; }
@media (max-width: 640px) {
  main { padding: .5rem; }
  .rows { font-size: 11.5px; }
  .rows th, .rows td { padding: .25rem .2rem; }
  .rows .verdict span { display: none; }
  .badge { margin-left: 0; }
  .wide th { min-width: 6.5rem; padding: 0; font-size: 11px; }
  .wide .stack th + th { font-size: 7px; }
  .wide td { width: 9px; min-width: 9px; }
  .wide a { font-size: 0; height: 22px; }
}
"""
