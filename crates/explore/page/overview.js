// All heads of a model, small, each a button with a canvas.
import { sequentialWords } from "./colors.js";
import { byId, el, fillSelect, short, showError, signed } from "./dom.js";
import { ask, bytesOf } from "./server.js";
import { change, isAblated, state, toggleHead } from "./state.js";

/** What heads can be ordered by: its words, and where the numbers are. */
const MEASURES = {
  order: "layer and head",
  entropy: "entropy",
  cls: "share on [CLS]",
  sep: "share on [SEP]",
  previous: "share on the previous token",
  next: "share on the next token",
  same: "share on the same token",
  effect: "effect of blocking it",
};

/** Names of orders that a link may have. */
export const measureNames = Object.keys(MEASURES);

const grid = byId("grid");
/** Buttons by layer and head. */
let buttons = [];
/** Heads in the order in which they are shown. */
let order = [];
let shown = null;

/** Fills the choice, and makes the grid answer to clicks and keys, once. */
export function startOverview() {
  fillSelect(byId("sort"), Object.entries(MEASURES), state.sort);
  byId("sort").addEventListener("change", event => change({ sort: event.target.value }));
  byId("clear").addEventListener("click", () => change({ ablate: [], edges: [] }));
  grid.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    const [layer, head] = [Number(button.dataset.layer), Number(button.dataset.head)];
    if (event.shiftKey) toggleHead(layer, head);
    else change({ layer, head });
  });
  grid.addEventListener("keydown", event => {
    const columns = shown?.model.heads ?? 1;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    stepHead(steps[event.key]);
    buttonOf(state.layer, state.head)?.focus();
  });
}

const buttonOf = (layer, head) => buttons[layer]?.[head];

/** Chooses the head so many places further in the shown order. */
export function stepHead(step) {
  const place = order.findIndex(([layer, head]) => layer === state.layer && head === state.head);
  const next = Number.isFinite(step) ? place + step : step < 0 ? 0 : order.length - 1;
  if (next < 0 || next >= order.length) return;
  const [layer, head] = order[next];
  change({ layer, head });
}

/** The order after this one, for a key. */
export function nextSort() {
  const at = measureNames.indexOf(state.sort);
  change({ sort: measureNames[(at + 1) % measureNames.length] });
}

function build(model) {
  buttons = Array.from({ length: model.layers }, (_, layer) =>
    Array.from({ length: model.heads }, (_, head) => {
      const button = el("button", { type: "button", className: "head" }, el("canvas"), el("span"));
      Object.assign(button.dataset, { layer, head });
      return button;
    }));
  grid.style.setProperty("--heads", model.heads);
}

/** Puts the buttons into rows, in the order of the measure `values`, or of layers and heads. */
function arrange(model, values) {
  const heads = buttons.flatMap((row, layer) => row.map((_, head) => [layer, head]));
  if (values) heads.sort(([a, b], [c, d]) => Math.abs(values[c][d]) - Math.abs(values[a][b]));
  const key = heads.join(" ");
  order = heads;
  const sorted = Boolean(values);
  if (grid.dataset.order === key && grid.dataset.model === String(model.id)) return;
  Object.assign(grid.dataset, { order: key, model: model.id, sorted });
  const rows = buttons.map((row, layer) => {
    const cells = row.map((_, head) => heads[layer * model.heads + head])
      .map(([a, b]) => el("span", { role: "gridcell" }, buttonOf(a, b)));
    const name = el("span", { role: "rowheader", className: "number" }, sorted ? "" : String(layer));
    return el("div", { role: "row", className: "row" }, name, ...cells);
  });
  const names = buttons[0].map((_, head) => el("span", { role: "columnheader", className: "number" }, sorted ? "" : String(head)));
  const top = el("div", { role: "row", className: "row" }, el("span", { className: "number" }), ...names);
  const focused = grid.contains(document.activeElement) ? document.activeElement : null;
  grid.replaceChildren(top, ...rows);
  focused?.focus();
}

/** Draws the cells of all heads. A cell is 255 times the square root of the largest probability in it. */
export function drawOverview() {
  if (!shown) return;
  const started = performance.now();
  const { model, run } = shown;
  const { cells } = run.overview;
  const bytes = bytesOf(run.overview, "data");
  const colors = sequentialWords();
  buttons.forEach((row, layer) => row.forEach((button, head) => {
    const canvas = button.firstChild;
    if (canvas.width !== cells) [canvas.width, canvas.height] = [cells, cells];
    const context = canvas.getContext("2d");
    const image = context.createImageData(cells, cells);
    const pixels = new Uint32Array(image.data.buffer);
    const from = (layer * model.heads + head) * cells * cells;
    for (let i = 0; i < pixels.length; i += 1) pixels[i] = colors[bytes[from + i]];
    context.putImageData(image, 0, 0);
  }));
  grid.dataset.milliseconds = performance.now() - started;
}

/** The numbers of the measure, [layer][head]; null for the plain order. */
async function valuesOf(view) {
  const { model, run } = view.shown[view.active];
  if (state.sort === "order") return null;
  if (state.sort !== "effect") return run.heads.map(row => row.map(head => head[state.sort]));
  if (!model.classes) throw new Error("This model has no classifier, so blocking a head changes no logit.");
  const answer = await ask("panel effect", "/api/ablations", { ...view.requestOf(model), class: view.target });
  return answer && answer.changes;
}

function labelHead(button, layer, head, values, run) {
  const numbers = run.heads[layer][head];
  const value = values?.[layer][head];
  const blocked = isAblated(layer, head);
  const chosen = layer === state.layer && head === state.head;
  const text = value === undefined ? "" : state.sort === "effect" ? signed(value, 2) : short(value);
  const name = values ? [`${layer}.${head}`, el("small", {}, text)] : [];
  button.lastChild.replaceChildren(...name);
  const facts = `entropy ${short(numbers.entropy)} nats${value === undefined || state.sort === "entropy" ? "" : `, ${MEASURES[state.sort]} ${text}`}`;
  button.title = `head ${layer}.${head}: ${facts}${blocked ? ", blocked" : ""}`;
  button.setAttribute("aria-label", button.title);
  button.setAttribute("aria-pressed", String(chosen));
  button.classList.toggle("chosen", chosen);
  button.classList.toggle("blocked", blocked);
  button.tabIndex = chosen ? 0 : -1;
}

/** Shows the heads of the active model. */
export async function showOverview(view) {
  const { model, run } = view.shown[view.active];
  byId("sort").value = state.sort;
  grid.setAttribute("aria-label", `All heads of ${model.name}`);
  byId("overview-title").textContent = view.shown.length > 1 ? `Heads of ${model.name}` : "All heads";
  if (shown?.model !== model) build(model);
  const isNew = shown?.run !== run;
  shown = { model, run };
  if (isNew) drawOverview();
  let values = null;
  try {
    values = await valuesOf(view);
    if (!view.isCurrent()) return;
    showError(byId("overview"), null);
  } catch (error) {
    showError(byId("overview"), error.message);
  }
  arrange(model, values);
  buttons.forEach((row, layer) => row.forEach((button, head) => labelHead(button, layer, head, values, run)));
  // Where the chosen head is none of this model's, the first is what the Tab key reaches.
  if (!buttonOf(state.layer, state.head)) buttons[0][0].tabIndex = 0;
}
