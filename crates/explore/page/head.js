// One square map on a canvas: a head's probabilities, or the difference of two heads.
import { divergingWords, sequentialWords } from "./colors.js";
import { el } from "./dom.js";

/** The smallest cell, in CSS pixels, beside which a token can be read. */
const READABLE = 11;
/** The largest map and the largest cell, in CSS pixels. */
const [LARGEST, LARGEST_CELL] = [640, 44];

/** The CSS colour of a word of an ImageData. */
const cssOfWord = word => `rgb(${word & 255}, ${(word >> 8) & 255}, ${(word >> 16) & 255})`;

/** A map with labels where they fit, a cursor, and marks on blocked edges. */
export class HeadMap {
  /** `point(cell)` is called for the cell under the pointer, `block(cell, everywhere)` for one clicked with Shift or Alt, and
   * `pick(query)` for a plain click; `key` hears the keyboard. A cell is [query, key]. */
  constructor({ point, block, pick, key }) {
    this.canvas = el("canvas", { className: "map", tabIndex: 0, role: "img" });
    this.title = el("figcaption");
    this.figure = el("figure", {}, this.title, this.canvas);
    this.cells = document.createElement("canvas");
    // A finger that taps does not move. The last cell stays when the pointer leaves, so that buttons can mean it.
    for (const name of ["pointermove", "pointerdown"]) {
      this.canvas.addEventListener(name, event => {
        const cell = this.cellAt(event);
        if (cell) point(cell);
      });
    }
    this.canvas.addEventListener("click", event => {
      const cell = this.cellAt(event);
      if (!cell) return;
      if (event.shiftKey || event.altKey) block(cell, event.altKey);
      else pick(cell[0]);
    });
    this.canvas.addEventListener("keydown", key);
  }

  /** The map of `values`, S x S, of which `most` has the strongest colour. */
  show({ name, tokens, values, most, isDifference, edges, caption }) {
    Object.assign(this, { name, tokens, values, most, isDifference, edges, size: tokens.length });
    this.title.textContent = caption;
    this.canvas.setAttribute("aria-label", `${name}: map of ${this.size} by ${this.size} tokens. Arrow keys read cells.`);
    this.color();
  }

  /** Where a value is on the scale, from 0 to 255. Probabilities by their square root, differences by the signed one. */
  place(value) {
    const share = value / this.most;
    const root = Math.sqrt(Math.min(Math.abs(share), 1));
    return Math.round(255 * (this.isDifference ? (1 + Math.sign(share) * root) / 2 : root));
  }

  words() {
    return this.isDifference ? divergingWords() : sequentialWords();
  }

  /** Colours the cells, a pixel each. */
  color() {
    const colors = this.words();
    [this.cells.width, this.cells.height] = [this.size, this.size];
    const context = this.cells.getContext("2d");
    const image = context.createImageData(this.size, this.size);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i += 1) pixels[i] = colors[this.place(this.values[i])];
    context.putImageData(image, 0, 0);
  }

  /** Margins for labels if they fit, else for numbers. */
  layOut(context, width) {
    context.font = this.font;
    const longest = Math.max(...this.tokens.map(token => context.measureText(token.text).width));
    const wanted = Math.min(longest + 10, 104, width / 3);
    this.labelled = (width - wanted) / this.count >= READABLE;
    const margin = this.labelled ? wanted : 30;
    const geometry = { left: margin, top: margin, cell: Math.min((width - margin) / this.count, LARGEST_CELL) };
    Object.assign(this, geometry);
    // Where cells are, in CSS pixels, for whoever looks at the canvas from outside.
    Object.assign(this.canvas.dataset, geometry, { query: this.corner[0], key: this.corner[1] });
  }

  /** Draws the map in the width that there is; or of it the square of `count` cells whose first is `corner`. */
  draw(cursor, corner, count) {
    const room = Math.min(this.figure.clientWidth, LARGEST);
    if (!room || !this.values) return;
    [this.corner, this.count] = corner ? [corner, count] : [[0, 0], this.size];
    const scale = devicePixelRatio || 1;
    const style = getComputedStyle(this.canvas);
    this.font = `12px ${style.fontFamily}`;
    const context = this.canvas.getContext("2d");
    this.layOut(context, room);
    const side = this.cell * this.count;
    const width = this.left + side + 1;
    const pixels = Math.round(width * scale);
    if (this.canvas.width !== pixels) [this.canvas.width, this.canvas.height] = [pixels, pixels];
    this.canvas.style.width = `${width}px`;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, width);
    context.font = this.font;
    // Cells smaller than a pixel are averaged; larger ones have sharp edges.
    context.imageSmoothingEnabled = this.cell * scale < 1;
    const [row, column] = this.corner;
    context.drawImage(this.cells, column, row, this.count, this.count, this.left, this.top, side, side);
    context.strokeStyle = style.getPropertyValue("--rule");
    context.lineWidth = 1;
    context.strokeRect(this.left - 0.5, this.top - 0.5, side + 0.5, side + 0.5);
    context.fillStyle = style.getPropertyValue("--quiet");
    if (this.labelled) this.drawLabels(context, cursor, style);
    else this.drawNumbers(context);
    context.save();
    context.beginPath();
    context.rect(this.left - 2, this.top - 2, side + 4, side + 4);
    context.clip();
    this.drawBlocked(context, style);
    if (cursor) this.drawCursor(context, cursor, style);
    context.restore();
  }

  drawLabels(context, cursor, style) {
    const [ink, quiet] = ["--ink", "--quiet"].map(name => style.getPropertyValue(name));
    context.textBaseline = "middle";
    const room = this.left - 8;
    const [row, column] = this.corner;
    for (let i = 0; i < this.count; i += 1) {
      const middle = this.left + this.cell * (i + 0.5);
      context.textAlign = "right";
      context.fillStyle = cursor?.[0] === row + i ? ink : quiet;
      context.fillText(fit(context, this.tokens[row + i].text, room), this.left - 5, middle);
      context.save();
      context.translate(middle, this.top - 5);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillStyle = cursor?.[1] === column + i ? ink : quiet;
      context.fillText(fit(context, this.tokens[column + i].text, room), 0, 0);
      context.restore();
    }
  }

  drawNumbers(context) {
    const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find(each => each * this.cell >= 34) ?? this.size;
    const [row, column] = this.corner;
    for (let i = 0; i < this.count; i += step) {
      const middle = this.left + this.cell * (i + 0.5);
      [context.textAlign, context.textBaseline] = ["right", "middle"];
      context.fillText(String(row + i), this.left - 5, middle);
      [context.textAlign, context.textBaseline] = ["center", "alphabetic"];
      context.fillText(String(column + i), middle, this.top - 5);
    }
  }

  drawBlocked(context, style) {
    context.strokeStyle = style.getPropertyValue("--c1");
    context.lineWidth = 2;
    const arm = Math.max(this.cell / 3, 3);
    for (const { query, key } of this.edges) {
      const [x, y] = this.placeOf(query + 0.5, key + 0.5);
      context.beginPath();
      for (const [dx, dy] of [[1, 1], [1, -1]]) {
        context.moveTo(x - arm * dx, y - arm * dy);
        context.lineTo(x + arm * dx, y + arm * dy);
      }
      context.stroke();
    }
  }

  drawCursor(context, [query, key], style) {
    const side = this.cell * this.count;
    const [x, y] = this.placeOf(query, key);
    context.strokeStyle = style.getPropertyValue("--ink");
    context.lineWidth = 1;
    context.globalAlpha = 0.35;
    context.strokeRect(this.left, y, side, this.cell);
    context.strokeRect(x, this.top, this.cell, side);
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.strokeRect(x - 1, y - 1, this.cell + 2, this.cell + 2);
  }

  /** The cell under the pointer, or null. */
  cellAt({ offsetX, offsetY }) {
    const cell = [offsetY - this.top, offsetX - this.left].map(place => Math.floor(place / this.cell));
    return cell.every(i => i >= 0 && i < this.count) ? cell.map((i, axis) => i + this.corner[axis]) : null;
  }

  /** Where a cell begins in the canvas, in CSS pixels. */
  placeOf(query, key) {
    return [this.left + this.cell * (key - this.corner[1]), this.top + this.cell * (query - this.corner[0])];
  }

  valueAt(query, key) {
    return this.values[query * this.size + key];
  }

  /** What an SVG of the drawn part needs. */
  drawing() {
    const colors = this.words();
    const [row, column] = this.corner;
    const textsFrom = from => this.tokens.slice(from, from + this.count).map(token => token.text);
    return {
      queries: textsFrom(row),
      keys: textsFrom(column),
      colorOf: (i, j) => cssOfWord(colors[this.place(this.valueAt(row + i, column + j))]),
      picture: () => this.cells,
    };
  }
}

/** The beginning of a text that fits into a width. */
function fit(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > width) end -= 1;
  return `${text.slice(0, end)}…`;
}
