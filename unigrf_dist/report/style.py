"""The page's style sheet: one column of cards, the reader's light or dark theme, nothing fetched."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --surface: #ffffff; --ink: #171b24; --muted: #626b7c; --grid: #e3e6ec;
  --retrieval: #3b5bdb; --ranking: #d9660a; --good: #0f8a5f;
  --series-0: #3b5bdb; --series-1: #1098a3; --series-2: #d9660a; --series-3: #a63d8f;
  --shadow: 0 1px 2px rgb(20 26 40 / .06), 0 4px 16px rgb(20 26 40 / .05);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0e1117; --surface: #171b23; --ink: #e8ebf1; --muted: #98a2b3; --grid: #2a303c;
    --retrieval: #8ea4ff; --ranking: #ffa657; --good: #4fd1a1;
    --series-0: #8ea4ff; --series-1: #56d0d8; --series-2: #ffa657; --series-3: #e58fd3;
    --shadow: 0 0 0 1px #222834;
  }
}
@media print { :root { --page: #ffffff; --shadow: none; } .card, figure { break-inside: avoid; } }
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 44px 24px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 2px 0 10px; letter-spacing: -.02em; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 44px 0 4px; letter-spacing: -.01em; }
h3 { font-size: 14px; margin: 0 0 6px; font-weight: 600; }
p { margin: 0 0 12px; }
.eyebrow { color: var(--muted); font-size: 13px; letter-spacing: .02em; margin: 0; }
.lede { max-width: 78ch; color: var(--muted); margin: 0; }
.hint { color: var(--muted); margin: 0 0 14px; max-width: 82ch; }
code { font: 12.5px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.card, figure {
  background: var(--surface); border-radius: 12px; box-shadow: var(--shadow); padding: 18px 20px;
  margin: 0;
}
.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 16px;
  margin: 28px 0 16px;
}
.figures .name { color: var(--muted); font-size: 13px; }
.figures .value {
  font-size: 33px; font-weight: 650; letter-spacing: -.02em; line-height: 1.25;
  font-variant-numeric: tabular-nums;
}
.figures .value.retrieval { color: var(--retrieval); }
.figures .value.ranking { color: var(--ranking); }
.figures .more { color: var(--muted); font-size: 13px; }
.facts { display: flex; flex-wrap: wrap; gap: 6px 26px; padding: 14px 20px; }
.facts span { color: var(--muted); font-size: 13px; margin-right: 7px; }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
@media (max-width: 760px) { .grid { grid-template-columns: minmax(0, 1fr); } main { padding: 24px 14px 48px; } }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure svg text { font-family: inherit !important; font-variant-numeric: tabular-nums; }
figcaption { color: var(--muted); font-size: 13px; }
.keys { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0 0 8px; font-size: 13px; }
.keys i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
.keys b { font-weight: 400; color: var(--muted); margin-left: 5px; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-weight: 500; font-size: 13px; border-bottom: 1px solid var(--grid); }
tbody th { font-weight: 600; padding-top: 16px; border-bottom: 1px solid var(--grid); }
tbody tr.figure + tr.figure td { border-top: 1px solid var(--grid); }
td.model { font-weight: 650; }
td.interval, td.none { color: var(--muted); font-size: 13px; }
td.best { color: var(--good); }
td .bar {
  display: block; height: 3px; border-radius: 2px; margin: 3px 0 0 auto; background: var(--muted);
  opacity: .45;
}
td.model .bar { background: var(--retrieval); opacity: 1; }
.ranking td.model .bar { background: var(--ranking); }
td.best .bar { background: var(--good); opacity: .8; }
small { display: block; font-size: 12px; }
.missing {
  align-self: start; border: 1px dashed var(--grid); box-shadow: none; background: none;
  color: var(--muted);
}
details { margin-top: 16px; }
details .hint { margin-top: 10px; }
summary { cursor: pointer; color: var(--muted); }
.config {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 16px;
  margin-top: 14px;
}
dl { display: grid; grid-template-columns: auto 1fr; gap: 2px 16px; margin: 0; font-size: 13px; }
dt { color: var(--muted); }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
footer { color: var(--muted); font-size: 13px; margin-top: 44px; }
"""
