// How much each token speaks for the class, coloured on the text.
import { diverging, gradient } from "./colors.js";
import { byId, decimal, el, fillSelect, short, showError, signed } from "./dom.js";
import { ask } from "./server.js";
import { change, state } from "./state.js";
import { saveText } from "./svg.js";
import { nameOf, TokenText } from "./tokens.js";

/** The words of methods and baselines. A method that is not here is shown by the name that the server gives. */
const METHODS = {
  gradient_x_input: "gradient × input",
  integrated_gradients: "integrated gradients",
  occlusion: "occlusion",
};
const BASELINES = { pad: "[PAD]", mask: "[MASK]", zero: "zero" };

/** Names of baselines that a link may have. */
export const baselineNames = Object.keys(BASELINES);

const section = byId("attributions");
/** One row a model: {text: TokenText, facts, values}. */
let shownTexts = [];
let current = null;

/** Fills the choices, once. */
export function startAttributions(methods) {
  fillSelect(byId("method"), methods.map(name => [name, METHODS[name] ?? name]), state.method);
  fillSelect(byId("baseline"), Object.entries(BASELINES), state.baseline);
  for (const name of ["method", "baseline"]) byId(name).addEventListener("change", event => change({ [name]: event.target.value }));
  byId("class").addEventListener("change", ({ target }) => change({ class: target.value === "" ? null : Number(target.value) }));
  byId("attribution-table").addEventListener("toggle", fillTable);
  byId("text-svg").addEventListener("click", () => {
    if (!current) return;
    const { model, values, tokens } = current.rows.find(row => row.index === current.view.active) ?? current.rows[0];
    const words = [model.name, METHODS[state.method] ?? state.method, `0 ± ${short(current.most)}`].join(", ");
    saveText(current.view.text, tokens, i => diverging(values[i] / current.most), words);
  });
}

/** A row of the page for each model. */
function layOut(view) {
  if (shownTexts.length === view.shown.length) return;
  shownTexts = view.shown.map(({ model }) => {
    const [facts, tokens] = [el("p", { className: "quiet" }), el("div", { className: "tokens", role: "group" })];
    tokens.setAttribute("aria-label", `Attributions of ${model.name}`);
    const name = view.shown.length > 1 ? [el("h3", {}, model.name)] : [];
    const node = el("div", { className: "model" }, ...name, tokens, facts);
    return { node, facts, text: new TokenText(tokens, { point: readOut }) };
  });
  section.querySelector(".models").replaceChildren(...shownTexts.map(row => row.node));
}

/** The value of a token, of each model. */
function readOut(i) {
  const words = i === null || !current ? "" : current.rows
    .filter(row => i < row.values.length)
    .map(row => `${current.rows.length > 1 ? `${row.model.name}: ` : ""}${nameOf(row.tokens, i)} ${signed(row.values[i])}`)
    .join("; ");
  byId("attribution-readout").textContent = words || "\u00a0";
}

/** How far the values can be trusted. */
function factsOf({ class: target, total, gap, steps, converged }, model) {
  const what = `Explains the logit of ${model.classes[target]}.`;
  if (gap === null || gap === undefined) return `${what} This method promises no sum.`;
  const sum = `The baseline and the text differ by ${signed(total)}; the sum of all tokens misses that by ${decimal(100 * gap, 2)} %`;
  const after = steps ? ` after ${steps} steps.` : ".";
  return `${what} ${sum}${after}${converged ? "" : " That is too much: read these values with care."}`;
}

function fillTable() {
  const details = byId("attribution-table");
  if (!details.open || !current) return;
  const names = ["Token", "Text", ...current.rows.map(({ model }) => model.name)];
  const head = names.map((text, i) => el("th", { scope: "col", className: i === 1 ? "" : "n" }, text));
  const longest = Math.max(...current.rows.map(row => row.values.length));
  const rows = Array.from({ length: longest }, (_, i) => {
    const token = current.rows.find(row => i < row.tokens.length).tokens[i];
    const values = current.rows.map(row => el("td", { className: "n" }, i < row.values.length ? signed(row.values[i], 4) : ""));
    return el("tr", {}, el("td", { className: "n" }, String(i)), el("th", { scope: "row" }, token.text), ...values);
  });
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  details.querySelector(".scroll").replaceChildren(table);
}

/** Colours with one scale for all models, and its legend. */
export function paintAttributions() {
  if (!current) return;
  for (const { index, values, tokens } of current.rows) {
    shownTexts[index].text.show(current.view.text, tokens);
    shownTexts[index].text.paint(i => ({ color: diverging(values[i] / current.most), words: signed(values[i]) }));
  }
  const scale = el("span", { className: "scale" });
  scale.style.backgroundImage = gradient(true);
  const [low, high] = [-current.most, current.most].map(value => signed(value));
  const legend = byId("attribution-legend");
  legend.replaceChildren(el("span", {}, `against ${low}`), scale, el("span", {}, `${high} for`));
  legend.hidden = false;
}

function clear(words) {
  current = null;
  shownTexts.forEach(row => row.text.container.replaceChildren());
  shownTexts.forEach(row => (row.text.tokens = null));
  shownTexts.forEach(row => (row.facts.textContent = words));
  byId("attribution-legend").hidden = true;
  byId("attribution-table").querySelector(".scroll").replaceChildren();
}

/** Requests and shows the attributions of all models that have classes. */
export async function showAttributions(view) {
  layOut(view);
  const classes = view.shown.find(({ model }) => model.classes)?.model.classes ?? [];
  fillSelect(byId("class"), [["", `predicted: ${classes[view.predicted] ?? ""}`], ...classes.map((name, i) => [String(i), name])], String(state.class ?? ""));
  for (const name of ["method", "baseline"]) byId(name).value = state[name];
  byId("baseline-choice").hidden = state.method === "gradient_x_input";
  section.querySelector(".controls").hidden = !classes.length;
  byId("attribution-table").hidden = !classes.length;
  if (!classes.length) {
    clear("This model has no classifier, so there is no logit to attribute.");
    return;
  }
  try {
    const answers = await Promise.all(view.shown.map(({ model }, index) => {
      if (!model.classes) return null;
      const baseline = state.method === "gradient_x_input" ? null : state.baseline;
      const request = { ...view.requestOf(model), method: state.method, class: view.target, baseline };
      return ask(`panel attributions ${index}`, "/api/attributions", request);
    }));
    if (!view.isCurrent() || answers.some((answer, index) => !answer && view.shown[index].model.classes)) return;
    const rows = view.shown.map(({ model, run }, index) => ({ model, index, tokens: run.tokens, answer: answers[index] }))
      .filter(row => row.answer)
      .map(row => ({ ...row, values: row.answer.values }));
    const most = Math.max(...rows.flatMap(row => row.values.map(Math.abs)), 1e-12);
    current = { view, rows, most };
    rows.forEach(({ index, answer, model }) => {
      shownTexts[index].facts.textContent = factsOf(answer, model);
      shownTexts[index].facts.dataset.gap = answer.gap ?? "";
      shownTexts[index].facts.classList.toggle("banner", answer.converged === false);
    });
    showError(section, null);
    paintAttributions();
    readOut(null);
    fillTable();
  } catch (error) {
    clear("");
    showError(section, error.message);
  }
}
