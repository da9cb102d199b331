// What is shown as SVG files: vectors, with no reference to anything else.
import { svgEl } from "./dom.js";
import { piecesOf } from "./tokens.js";

const FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, sans-serif";
/** Characters that XML has no way to write. */
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;
/** Cells of a map that is drawn as rectangles, a side. A larger map is one picture inside of the SVG: 512 tokens are 262,144 cells. */
const RECTANGLES = 96;

/** A text as XML can hold it. */
export const writable = text => text.toWellFormed().replace(FORBIDDEN, "\ufffd");
const paper = () => getComputedStyle(document.body).backgroundColor;
const inkOf = () => getComputedStyle(document.body).color;

/** Text in an SVG; its white space stays. */
function labelText(text, attributes) {
  return svgEl("text", { "xml:space": "preserve", ...attributes }, writable(text));
}

/** Offers an SVG as a file. */
function save(name, width, height, title, children) {
  const frame = svgEl("rect", { width, height, fill: paper() });
  const size = { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": FONT };
  const svg = svgEl("svg", size, svgEl("title", {}, writable(title)), frame, ...children);
  const text = new XMLSerializer().serializeToString(svg);
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Saves a head's map. `colorOf(row, column)` is CSS, `picture()` all cells as a canvas, one pixel each. */
export function saveMap(name, title, { queries, keys, colorOf, picture }) {
  const size = queries.length;
  const cell = size <= RECTANGLES ? 16 : 512 / size;
  const margin = size <= RECTANGLES ? 96 : 16;
  const side = margin + cell * size + 16;
  const children = [];
  if (size <= RECTANGLES) {
    const map = svgEl("g", { "shape-rendering": "crispEdges" });
    queries.forEach((query, row) => {
      keys.forEach((key, column) => {
        const [x, y] = [margin + cell * column, margin + cell * row];
        map.append(svgEl("rect", { x, y, width: cell, height: cell, fill: colorOf(row, column) }));
      });
      const middle = margin + cell * (row + 0.5) + 4;
      const look = { "font-size": 11, fill: inkOf() };
      children.push(labelText(query, { x: margin - 6, y: middle, "text-anchor": "end", ...look }));
      children.push(labelText(keys[row], { transform: `translate(${middle} ${margin - 6}) rotate(-90)`, ...look }));
    });
    children.unshift(map);
  } else {
    const image = { x: margin, y: margin, width: 512, height: 512, href: picture().toDataURL("image/png") };
    children.push(svgEl("image", { ...image, "image-rendering": "pixelated" }));
  }
  save(name, side, side, title, children);
}

/** Saves a head's lines, an SVG of the page, with the colours that the page gives it. */
export function saveLines(name, title, drawn) {
  const [, , width, height] = drawn.getAttribute("viewBox").split(" ").map(Number);
  const copy = drawn.cloneNode(true);
  const originals = [...drawn.querySelectorAll("line, text")];
  [...copy.querySelectorAll("line, text")].forEach((node, i) => {
    const { stroke, fill } = getComputedStyle(originals[i]);
    if (node.localName === "line") node.setAttribute("stroke", stroke);
    else Object.entries({ fill, "font-size": 12 }).forEach(([attribute, value]) => node.setAttribute(attribute, value));
    node.removeAttribute("class");
  });
  save(name, width, height, title, [...copy.childNodes]);
}

/** Saves a text whose tokens have the background and ink of `look(i)`, in lines of 640 px. */
export function saveText(text, tokens, look, title) {
  const [size, line, width] = [16, 28, 640];
  const context = document.createElement("canvas").getContext("2d");
  context.font = `${size}px ${FONT}`;
  let [x, y] = [16, 40];
  const children = [labelText(title, { x: 16, y: 20, "font-size": 12, fill: inkOf() })];
  for (const piece of piecesOf(text, tokens)) {
    for (const part of piece.text.split(/(\n)/)) {
      if (part === "") continue;
      const wide = context.measureText(part).width;
      if (part === "\n" || (x + wide > width - 16 && x > 16)) [x, y] = [16, y + line];
      if (part.trim() === "" && (part === "\n" || x === 16)) continue;
      const color = piece.token === undefined ? null : look(piece.token);
      if (color) children.push(svgEl("rect", { x, y, width: wide, height: line - 6, rx: 2, fill: color.background }));
      children.push(labelText(part, { x, y: y + 16, "font-size": size, fill: color?.ink ?? inkOf() }));
      x += wide + (piece.piece ? 4 : 0);
    }
  }
  save("attributions.svg", width, y + line + 12, title, children);
}
