// A head of a short text as lines from each token to the tokens that it attends to.
import { el, svgEl } from "./dom.js";
import { writable } from "./svg.js";
import { nameOf } from "./tokens.js";

/** Tokens of the longest text that is drawn as lines. */
export const LONGEST = 64;
/** A smaller probability has no line: nobody would see it. */
const FAINTEST = 0.01;
const [ROW, WIDTH, LEFT, RIGHT] = [20, 360, 120, 240];

/** The lines of `values`, S x S. `point(query, key)` is called for the row under the pointer. */
export function linesOf(name, caption, tokens, values, chosen) {
  const size = tokens.length;
  const height = ROW * size + 8;
  const middle = i => ROW * (i + 0.5) + 4;
  const attributes = { class: "lines", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `${name}: lines from each token to what it attends to` };
  const svg = svgEl("svg", attributes);
  const lines = svgEl("g");
  for (let query = 0; query < size; query += 1) {
    if (chosen !== null && chosen !== query) continue;
    for (let key = 0; key < size; key += 1) {
      const share = values[query * size + key];
      if (share < FAINTEST) continue;
      const ends = { x1: LEFT + 6, y1: middle(query), x2: RIGHT - 6, y2: middle(key) };
      const line = svgEl("line", { ...ends, "stroke-opacity": Math.min(share, 1), "stroke-width": 2 });
      line.append(svgEl("title", {}, writable(`${nameOf(tokens, query)} → ${nameOf(tokens, key)}: ${share.toFixed(3)}`)));
      lines.append(line);
    }
  }
  const texts = tokens.map(token => writable(token.text)).flatMap((text, i) => [
    svgEl("text", { x: LEFT, y: middle(i) + 4, "text-anchor": "end", class: i === chosen ? "chosen" : "" }, text),
    svgEl("text", { x: RIGHT, y: middle(i) + 4 }, text),
  ]);
  svg.append(lines, ...texts);
  return el("figure", {}, el("figcaption", { textContent: caption }), svg);
}
