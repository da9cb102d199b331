// The chosen head, large: of one model, or of two with their difference; and on the text itself.
import { gradient, sequential } from "./colors.js";
import { byId, decimal, el, short, showError, signed } from "./dom.js";
import { HeadMap } from "./head.js";
import { linesOf, LONGEST } from "./lines.js";
import { ask, floatsOf } from "./server.js";
import { change, edgesOf, isAblated, state, toggleEdge, toggleHead } from "./state.js";
import { saveLines, saveMap } from "./svg.js";
import { nameOf, TokenText } from "./tokens.js";

const zoom = byId("attention");
/** {view, panels: [{model, tokens, values, most, isDifference}]}; null where there is nothing to show. */
let zoomed = null;
/** The cell that is read, [query, key]. */
let cursor = null;
/** The first cell of the magnified part; null for the whole map. */
let corner = null;
/** Tokens on a side of the magnified part: as many as have room for their labels. */
const MAGNIFIED = 36;
let maps = [];
let attended = null;

const callbacks = {
  point: cell => moveCursor(cell),
  pick: query => change({ token: state.token === query ? null : query }),
  block: (cell, everywhere) => blockEdge(cell, everywhere),
  key: event => walk(event),
};

/** Connects the buttons, once. */
export function startAttention() {
  attended = new TokenText(byId("attended"), {
    pick: i => change({ token: state.token === i ? null : i }),
    point: null,
  });
  byId("ablate").addEventListener("click", () => toggleHead(state.layer, state.head));
  byId("view").addEventListener("click", toggleView);
  byId("block-edge").addEventListener("click", () => blockAtCursor(false));
  byId("direction").addEventListener("change", event => change({ direction: event.target.value }));
  byId("map-svg").addEventListener("click", () => {
    if (!zoomed) return;
    const at = Math.max(zoomed.panels.findIndex(panel => panel.index === zoomed.view.active), 0);
    const name = `attention-${state.layer}.${state.head}.svg`;
    const title = `${zoomed.panels[at].model.name}, head ${state.layer}.${state.head}`;
    if (maps.length) saveMap(name, title, maps[at].drawing());
    else saveLines(name, title, byId("maps").querySelectorAll("svg")[at]);
  });
  byId("magnify").addEventListener("click", magnify);
  new ResizeObserver(drawMaps).observe(byId("maps"));
}

/** Map or lines. */
export const toggleView = () => change({ view: state.view === "map" ? "lines" : "map" });

function moveCursor(cell) {
  if (cell.join() === cursor?.join()) return;
  cursor = cell;
  // The magnified part follows the cursor.
  corner = corner?.map((from, i) => Math.min(Math.max(from, cell[i] - MAGNIFIED + 1), cell[i])) ?? null;
  drawMaps();
  readCell();
}

function drawMaps() {
  maps.forEach(map => map.draw(cursor, corner, MAGNIFIED));
}

/** Shows the part of the map around the cursor, or the whole again. */
export function magnify() {
  const size = zoomed?.panels[0].tokens.length ?? 0;
  if (size <= MAGNIFIED) return;
  const inside = i => Math.min(Math.max(i - MAGNIFIED / 2, 0), size - MAGNIFIED);
  corner = corner ? null : (cursor ?? [0, 0]).map(inside);
  byId("magnify").textContent = corner ? "Whole map" : "Magnify";
  drawMaps();
}

/** Blocks the edge of a cell, in the chosen head or everywhere. */
function blockEdge(cell, everywhere) {
  const [layer, head] = everywhere ? [null, null] : [state.layer, state.head];
  if (cell) toggleEdge({ layer, head, query: cell[0], key: cell[1] });
}

/** Blocks the edge under the cursor. */
export const blockAtCursor = everywhere => blockEdge(cursor, everywhere);

/** Arrow keys on a map. */
function walk(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (!zoomed || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && cursor) callbacks.pick(cursor[0]);
  else if (event.key in steps) {
    const last = zoomed.panels[0].tokens.length - 1;
    const next = cursor?.map((from, i) => Math.min(Math.max(from + steps[event.key][i], 0), last));
    moveCursor(next ?? [0, 0]);
  } else return;
  event.preventDefault();
}

/** The value under the cursor, of every map. */
function readCell() {
  const line = byId("zoom-readout");
  const button = byId("block-edge");
  button.hidden = !cursor || !zoomed || !maps.length;
  if (button.hidden) {
    line.textContent = "\u00a0";
    return;
  }
  const [query, key] = cursor;
  const { tokens } = zoomed.panels[0];
  const several = zoomed.panels.length > 1;
  const values = zoomed.panels.filter(panel => query < panel.tokens.length && key < panel.tokens.length).map(panel => {
    const value = panel.values[query * panel.tokens.length + key];
    return `${several ? `${panel.short} ` : ""}${panel.isDifference ? signed(value) : decimal(value)}`;
  });
  const blocked = edgesOf(state.layer, state.head).some(edge => edge.query === query && edge.key === key);
  button.disabled = blocked;
  line.textContent = `${nameOf(tokens, query)} → ${nameOf(tokens, key)}: ${values.join(", ")}`;
}

/** The difference of two maps of the same tokens. */
function differenceOf([a, b]) {
  const same = a.tokens.length === b.tokens.length && a.tokens.every((token, i) => token.text === b.tokens[i].text);
  if (!same) return [];
  const values = b.values.map((value, i) => value - a.values[i]);
  const most = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-12);
  return [{ name: `${b.model.name} − ${a.model.name}`, short: "difference", tokens: a.tokens, values, most, isDifference: true }];
}

function showFacts(view) {
  const { model, run } = view.shown[view.active];
  byId("zoom-title").textContent = `Head ${state.layer}.${state.head}`;
  const button = byId("ablate");
  const blocked = isAblated(state.layer, state.head);
  button.textContent = blocked ? "Unblock head" : "Block head";
  button.setAttribute("aria-pressed", String(blocked));
  const numbers = run.heads[state.layer]?.[state.head];
  const facts = numbers ? [
    `entropy ${short(numbers.entropy)} nats`, `on [CLS] ${decimal(numbers.cls)}`, `on [SEP] ${decimal(numbers.sep)}`,
    `previous ${decimal(numbers.previous)}`, `next ${decimal(numbers.next)}`, `same ${decimal(numbers.same)}`,
  ] : [`no head ${state.layer}.${state.head}`];
  byId("zoom-facts").textContent = `${view.shown.length > 1 ? `${model.name}: ` : ""}${facts.join(", ")}.`;
}

/** Draws what was answered: maps or lines, with a legend each. */
export function drawAttention() {
  if (!zoomed) return;
  const { view, panels } = zoomed;
  const fits = panels.every(panel => panel.tokens.length <= LONGEST);
  const lines = state.view === "lines" && fits;
  byId("view").textContent = state.view === "lines" ? "Map" : "Lines";
  byId("view").setAttribute("aria-pressed", String(state.view === "lines"));
  byId("zoom-help").hidden = lines;
  showError(zoom, state.view === "lines" && !fits ? `Lines are drawn for at most ${LONGEST} tokens; this is the map.` : null);
  const captionOf = panel => (panels.length > 1 ? panel.name : "");
  const holder = byId("maps");
  holder.dataset.count = panels.length;
  if (lines) {
    maps = [];
    const drawn = panels.filter(panel => !panel.isDifference);
    holder.replaceChildren(...drawn.map(panel => linesOf(panel.name, captionOf(panel), panel.tokens, panel.values, state.token)));
  } else {
    if (maps.length !== panels.length) maps = panels.map(() => new HeadMap(callbacks));
    if (holder.children.length !== maps.length || holder.firstChild !== maps[0].figure) holder.replaceChildren(...maps.map(map => map.figure));
    const edges = edgesOf(state.layer, state.head);
    maps.forEach((map, i) => map.show({ ...panels[i], edges, caption: captionOf(panels[i]) }));
    drawMaps();
    maps.forEach((map, i) => showLegend(map, panels[i]));
  }
  showAttended(view);
  readCell();
}

function showLegend(map, { most, isDifference }) {
  const scale = el("span", { className: "scale" });
  scale.style.backgroundImage = gradient(isDifference);
  map.figure.querySelector(".legend")?.remove();
  const [low, middle, high] = isDifference ? [signed(-most), "0", signed(most)] : ["0", short(most / 4), short(most)];
  map.figure.append(el("div", { className: "legend" }, el("span", {}, low), scale, el("span", {}, high), el("span", {}, `(middle ${middle})`)));
}

/** What the chosen token attends to, or what attends to it, on the text. */
function showAttended(view) {
  const panel = zoomed.panels.find(each => each.index === view.active) ?? zoomed.panels[0];
  const { tokens, values } = panel;
  const size = tokens.length;
  attended.show(view.text, tokens);
  byId("direction").value = state.direction;
  const token = state.token !== null && state.token < size ? state.token : null;
  const share = i => values[state.direction === "to" ? token * size + i : i * size + token];
  const most = token === null ? 1 : tokens.reduce((most, _, i) => Math.max(most, share(i)), 1e-12);
  attended.paint(i => (token === null ? { color: null } : { color: sequential(share(i) / most), words: decimal(share(i)) }));
  attended.select(token);
  const words = state.direction === "to" ? "What %s attends to" : "What attends to %s";
  byId("attended-title").textContent = token === null
    ? "Choose a token: its attention in this head is then coloured on the text."
    : `${words.replace("%s", nameOf(tokens, token))} in head ${state.layer}.${state.head}${zoomed.several ? ` of ${panel.name}` : ""}; the strongest colour is ${short(most)}.`;
}

function empty(message) {
  zoomed = null;
  maps = [];
  byId("maps").replaceChildren();
  byId("attended").replaceChildren();
  attended.tokens = null;
  byId("attended-title").textContent = "";
  readCell();
  showError(zoom, message);
}

/** Requests and shows the chosen head of all models that have it. */
export async function showAttention(view) {
  showFacts(view);
  const { layer, head } = state;
  const having = view.shown.map((each, index) => ({ ...each, index })).filter(({ model }) => layer < model.layers && head < model.heads);
  try {
    const answers = await Promise.all(having.map(({ model, index }) =>
      ask(`panel attention ${index}`, "/api/attention", { ...view.requestOf(model), layer, head })));
    if (!view.isCurrent() || answers.includes(null)) return;
    const panels = having.map(({ model, run, index }, i) => {
      const values = floatsOf(answers[i], "probabilities");
      if (values.length !== run.tokens.length ** 2) throw new Error("The server's map has another size than its text.");
      const most = values.reduce((most, value) => Math.max(most, value), 1e-12);
      return { name: view.shown.length > 1 ? model.name : `Head ${layer}.${head}`, short: model.name, model, index, tokens: run.tokens, values, most };
    });
    const several = panels.length > 1;
    // One scale for all models: equal colours are equal probabilities.
    const most = Math.max(...panels.map(panel => panel.most));
    panels.forEach(panel => (panel.most = most));
    // A place in another text is none in this one.
    if (zoomed?.view.text !== view.text) [cursor, corner] = [null, null];
    byId("magnify").hidden = panels[0].tokens.length <= MAGNIFIED || state.view === "lines";
    byId("magnify").textContent = corner ? "Whole map" : "Magnify";
    zoomed = { view, panels: several ? [...panels, ...differenceOf(panels)] : panels, several };
    drawAttention();
  } catch (error) {
    empty(error.message);
  }
}
