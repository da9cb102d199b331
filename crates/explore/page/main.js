// The page: reads the address, runs the text, and gives what the server answers to the panels.
import { baselineNames, paintAttributions, showAttributions, startAttributions } from "./attributions.js";
import { blockAtCursor, drawAttention, magnify, showAttention, startAttention, toggleView } from "./attention.js";
import { isDark } from "./colors.js";
import { byId, debounced, el, fillSelect, showError } from "./dom.js";
import { startKeys } from "./keys.js";
import { drawLens, showLens, startLens } from "./lens.js";
import { drawOverview, measureNames, nextSort, showOverview, startOverview, stepHead } from "./overview.js";
import { showChanges, showPredictions, statusOf } from "./prediction.js";
import { abort, ask, snapshot } from "./server.js";
import { change, fitTo, fromHash, onChange, state, toggleHead, toHash } from "./state.js";

const EXAMPLES = [
  "This film was not bad at all.",
  "This movie was absolutely fantastic! I loved every minute of it.",
  "I absolutely hated this film. It was a complete waste of time and money.",
  "This film was not bad, but it wasn't great either. Pretty mediocre, actually.",
];
/** Milliseconds without a key before a text is run. */
const TYPING = 300;

let models = [];
let methods = [];
let turn = 0;
let view = null;
const sentence = byId("sentence");
const panels = ["prediction", "attributions", "attention", "lens"].map(byId);

/** The state of a request for a model: without heads that this model has not. */
function requestOf(model, { ablate, edges }) {
  const has = (layer, head) => (layer ?? 0) < model.layers && (head ?? 0) < model.heads;
  return {
    model: model.id,
    text: state.text.toWellFormed(),
    ablate: ablate.filter(([layer, head]) => has(layer, head)),
    edges: edges.filter(({ layer, head }) => has(layer, head)),
  };
}

/** Runs the text in a model: as it is blocked now, and with nothing blocked. Null if a later run began meanwhile. */
async function runIn(model, index) {
  const [blocked, plain] = [requestOf(model, state), requestOf(model, { ablate: [], edges: [] })];
  const isPlain = blocked.ablate.length + blocked.edges.length === 0;
  const runs = [ask(`run ${index}`, "/api/run", blocked)];
  if (!isPlain) runs.push(ask(`clean ${index}`, "/api/run", plain));
  const [run, clean = run] = await Promise.all(runs);
  return run && clean && { model, run, clean };
}

/**
 * What the active model predicts with nothing blocked. Unless a class is chosen, this is explained, in all models: so the meaning of
 * colours does not change while heads are blocked. Null without a classifier.
 */
function predictedOf(shown) {
  const { clean } = shown[state.model].clean.prediction ? shown[state.model] : shown.find(each => each.clean.prediction) ?? {};
  const probabilities = clean?.prediction.probabilities;
  return probabilities ? probabilities.indexOf(Math.max(...probabilities)) : null;
}

/** Shows a panel. If that takes long, what still stands there is marked as old. */
async function update(id, show) {
  const { isCurrent } = view;
  const timer = setTimeout(() => byId(id).classList.add("stale"), 150);
  try {
    await show();
  } finally {
    clearTimeout(timer);
    if (isCurrent()) byId(id).classList.remove("stale");
  }
}

/** Brings the page to its state. */
async function refresh() {
  turn += 1;
  const mine = turn;
  const isCurrent = () => mine === turn;
  // What is shown belongs to another text until the run is there.
  const isNewText = view?.text !== state.text;
  if (isNewText) abort("panel");
  panels.forEach(panel => panel.classList.toggle("stale", isNewText));
  document.documentElement.setAttribute("aria-busy", "true");
  try {
    const shown = await Promise.all(models.map(runIn));
    if (!isCurrent() || shown.includes(null)) return;
    showError(sentence, null);
    view = { text: state.text, shown, active: state.model, isCurrent, requestOf: model => requestOf(model, state) };
    view.predicted = predictedOf(shown);
    view.target = state.class ?? view.predicted;
    panels.forEach(panel => panel.classList.remove("stale"));
    byId("status").textContent = statusOf(view);
    showPredictions(view);
    await Promise.all([
      update("attention", () => Promise.all([showOverview(view), showAttention(view)])),
      update("attributions", () => showAttributions(view)),
      update("lens", () => showLens(view)),
    ]);
  } catch (error) {
    if (!isCurrent()) return;
    view = null;
    panels.forEach(panel => panel.classList.add("stale"));
    byId("status").textContent = "";
    showError(sentence, error.message);
    showChanges();
  } finally {
    if (isCurrent()) document.documentElement.setAttribute("aria-busy", "false");
  }
}

/** Characters of the longest address that browsers and chat programs pass on. */
const LONGEST_LINK = 32_000;

/** Writes the state into the address, if that can hold it. */
function writeHash() {
  const hash = toHash();
  const fits = hash.length <= LONGEST_LINK;
  history.replaceState(null, "", fits ? hash : "#");
  return fits;
}

/** The same a little later: browsers refuse more than some hundred of these in a minute. */
const saveHash = debounced(150, writeHash);

/** Takes the state from the address, and says what of it this page does not have. */
function readHash(hash) {
  const { parts, unread } = fromHash(hash);
  const choices = { method: methods, baseline: baselineNames, sort: measureNames, view: ["map", "lines"], direction: ["to", "from"] };
  const dropped = [...unread, ...fitTo(parts, { models, choices })];
  const notice = byId("notice");
  notice.textContent = dropped.length ? `The link has parts that are not here and are left out: ${dropped.join(", ")}.` : "";
  notice.hidden = !dropped.length;
  byId("text").value = parts.text;
  byId("model").value = String(parts.model);
  change(parts);
}

function describe() {
  const names = models.map(model => model.name);
  byId("title").textContent = names.join(" beside ");
  document.title = `${names.join(", ")}: Vitrine explorer`;
  const facts = model => [
    `${model.layers} layers × ${model.heads} heads`, `hidden size ${model.hidden}`, `${model.vocabulary.toLocaleString("en")} words`,
    model.classes ? `classes ${model.classes.join(", ")}` : "no classifier", model.masked_lm ? "masked-LM head" : "no masked-LM head",
    ...(model.lens_head_of ? [`the lens looks through that of ${model.lens_head_of}`] : []),
  ].join(", ");
  const line = model => el("span", { className: "line" }, `${models.length > 1 ? `${model.name}: ` : ""}${facts(model)}.`);
  byId("facts").replaceChildren(...models.map(line));
  byId("model-choice").hidden = models.length < 2;
  fillSelect(byId("model"), models.map((model, i) => [String(i), model.name]), String(state.model));
}

function setTheme(dark) {
  if (dark !== undefined) document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  drawOverview();
  drawAttention();
  paintAttributions();
  drawLens();
}

async function copyLink() {
  const button = byId("link");
  const fits = writeHash();
  const copied = fits && await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
  button.textContent = !fits ? "The text is too long for a link" : copied ? "Copied" : "The address is the link";
  setTimeout(() => (button.textContent = "Copy link"), 2000);
}

function startText() {
  const field = byId("text");
  const type = debounced(TYPING, () => field.value !== state.text && change({ text: field.value }));
  field.addEventListener("input", type);
  const run = text => {
    field.value = text;
    change({ text });
  };
  const examples = EXAMPLES.map(text => {
    const button = el("button", { type: "button" }, text);
    button.addEventListener("click", () => run(text));
    return button;
  });
  byId("examples").replaceChildren(...examples);
  if (!snapshot) return;
  field.readOnly = true;
  byId("examples").hidden = true;
  byId("origin").textContent = "Saved by the Vitrine explorer: the text is fixed, and what was not saved cannot be shown. Nothing is loaded.";
}

async function start() {
  ({ models, methods } = await ask("models", "/api/models"));
  describe();
  startText();
  startOverview();
  startAttention();
  startAttributions(methods);
  startLens(() => view && showLens(view));
  byId("model").addEventListener("change", event => change({ model: Number(event.target.value) }));
  byId("theme").addEventListener("click", () => setTheme(!isDark()));
  byId("link").addEventListener("click", copyLink);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme());
  startKeys({
    "/": ["type a text; Escape leaves the field", () => byId("text").focus()],
    "[": ["the head before", () => stepHead(-1)],
    "]": ["the head after", () => stepHead(1)],
    x: ["block the chosen head, or unblock it", () => toggleHead(state.layer, state.head)],
    b: ["block the edge under the cursor of the map, in this head", () => blockAtCursor(false)],
    B: ["the same in all heads", () => blockAtCursor(true)],
    u: ["unblock all heads and edges", () => change({ ablate: [], edges: [] })],
    s: ["order the heads by the next measure", nextSort],
    v: ["map or lines", toggleView],
    z: ["magnify a large map around the cursor, or show the whole", magnify],
    m: ["the other model", () => change({ model: (state.model + 1) % models.length })],
    d: ["dark or light", () => setTheme(!isDark())],
  });
  setTheme();
  onChange(refresh);
  onChange(saveHash);
  onChange(() => (byId("model").value = String(state.model)));
  addEventListener("hashchange", () => readHash(location.hash));
  readHash(location.hash.length > 1 ? location.hash : snapshot?.hash ?? "");
}

start().catch(error => showError(sentence, error.message));
