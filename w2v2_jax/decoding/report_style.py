"""How a report looks, on light and dark screens and on paper."""

STYLE = """
:root {
  color-scheme: light;
  --paper: #fbfaf7; --ink: #1f1f23; --faint: #6d6b68; --line: #e3dfd6; --band: #d9d4c8;
  --substitution: #b34a00; --deletion: #00639c; --insertion: #00734f;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, Charter, "Bitstream Charter", Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark;
    --paper: #17171a; --ink: #e9e6e0; --faint: #9b978f; --line: #34333a; --band: #4a4850;
    --substitution: #ff9a5c; --deletion: #6fbcf0; --insertion: #4fd0a3;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 4rem clamp(1.25rem, 5vw, 3rem) 5rem; max-width: 70rem;
  background: var(--paper); color: var(--ink);
  font: 0.9375rem/1.5 var(--sans); font-variant-numeric: tabular-nums lining-nums;
}
h1, h2, h3, p, dl, dd, table { margin: 0; padding: 0; }
h1 { font: 400 clamp(1.8rem, 4vw, 2.6rem)/1.15 var(--serif); letter-spacing: -0.01em; text-wrap: balance; }
h2 { font: 400 1.45rem/1.25 var(--serif); }
h3 { font: 600 0.9375rem/1.4 var(--sans); }
h1, h2, h3, td, th, p { overflow-wrap: anywhere; }
.note { color: var(--faint); font-size: 0.8125rem; max-width: 62ch; text-wrap: pretty; }
main > section { margin-top: 3.25rem; }
main > section > header { margin-bottom: 1.25rem; }
body > header .note { margin-top: 0.6rem; font-size: 0.9375rem; }

.rates { display: flex; flex-wrap: wrap; gap: 1.75rem 4rem; padding: 1.5rem 0; border-block: 1px solid var(--line); }
.rates dt { color: var(--faint); font-size: 0.8125rem; }
.rates dd { font: 400 3rem/1.1 var(--serif); letter-spacing: -0.02em; }
.rates dd + dd { font: 0.8125rem/1.5 var(--sans); letter-spacing: 0; color: var(--faint); }

.mixture { display: flex; gap: 2px; height: 0.625rem; margin-bottom: 0.6rem; }
.mixture { border-radius: 0.3125rem; overflow: hidden; }
.mixture > div { background: var(--hue); }
.legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.75rem; font-size: 0.8125rem; color: var(--faint); }
.legend b { color: var(--hue); font-weight: 600; }
.substitution { --hue: var(--substitution); }
.deletion { --hue: var(--deletion); }
.insertion { --hue: var(--insertion); }

.panels { columns: 25rem 2; column-gap: 3.5rem; }
.panels > * { break-inside: avoid; margin-bottom: 2.5rem; }
.panels .note { margin: 0.15rem 0 0.7rem; }
table { width: 100%; border-collapse: collapse; font-size: 0.8125rem; }
th, td { padding: 0.22rem 0; text-align: left; font-weight: 400; vertical-align: baseline; }
th[scope=row] { padding-right: 0.9rem; }
.chart th { width: 1%; white-space: nowrap; max-width: 9rem; overflow: hidden; text-overflow: ellipsis; }
.chart td:nth-child(n+3) { width: 1%; padding-left: 0.9rem; text-align: right; white-space: nowrap; }
.chart td:nth-child(n+4) { color: var(--faint); }
.track { position: relative; }
.track > * { position: absolute; top: 50%; transform: translateY(-50%); height: 0.5rem; border-radius: 0.25rem; }
.track .bar { left: 0; background: var(--ink); opacity: 0.75; border-radius: 0 0.125rem 0.125rem 0; }
.track .band { background: var(--band); min-width: 1px; }
.track .dot { width: 0.5rem; margin-left: -0.25rem; background: var(--ink); }
.track .overall { top: 0; height: 100%; width: 1px; transform: none; background: var(--faint); opacity: 0.6; }

.utterance { padding: 1.1rem 0 1.25rem; border-top: 1px solid var(--line); break-inside: avoid; }
.utterance header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1rem; }
.utterance h3 { font: 0.8125rem/1.5 var(--mono); }
.utterance audio { display: block; width: 100%; max-width: 26rem; height: 2.25rem; margin: 0.6rem 0 0; }
.aligned { margin-top: 0.5rem; font: 1.0625rem/1.45 var(--serif); }
.edit { display: inline-grid; vertical-align: baseline; padding-inline: 0.1em; color: var(--hue); }
.edit > * { text-decoration: none; min-height: 1lh; min-width: 0.8em; text-align: center; }
.edit ins { font: 600 0.8125rem/1.3 var(--sans); }
.edit del { text-decoration: underline 1px; text-underline-offset: 0.2em; }
.edit ins:empty { display: none; }
.edit.deletion del { text-decoration: line-through 1px; }
.edit.insertion del { text-decoration: none; }
.edit.insertion del::before { content: "+"; opacity: 0.6; }
.aligned.key { font-size: 0.9375rem; margin-bottom: 1rem; }

.thirds { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 16rem), 1fr)); gap: 2.5rem 3rem; }
.thirds > table { align-self: start; }
.confusions th, .confusions td { border-top: 1px solid var(--line); padding: 0.3rem 0; }
.confusions thead th { border: 0; color: var(--faint); }
.confusions thead th:first-child { color: var(--hue); font-weight: 600; font-size: 0.9375rem; }
.confusions :is(td, th):nth-child(n+2) { width: 1%; padding-left: 1.25rem; text-align: right; white-space: nowrap; }
.confusions tbody th { font: 0.9375rem/1.4 var(--serif); }
.confusions td:last-child { color: var(--faint); }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--line); }

@media print {
  @page { margin: 18mm 16mm; }
  html { font-size: 9pt; }
  body { padding: 0; max-width: none; --paper: #fff; }
  audio { display: none !important; }
  .mixture > div, .track > * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .thirds, tr { break-inside: avoid; }
  h2, main > section > header { break-after: avoid; }
}
"""
"""The style sheet: system fonts, three hues that the colour-blind tell apart, nothing to load."""
