// What the model says, beside what it says with nothing blocked.
import { byId, decimal, el, signed } from "./dom.js";
import { nameOf } from "./tokens.js";
import { state, toggleEdge, toggleHead } from "./state.js";

const percent = share => `${decimal(100 * share, 1)}\u00a0%`;

function bar(share, className) {
  const fill = el("i", { className });
  fill.style.width = `${100 * share}%`;
  return fill;
}

/** A table has at most this many classes. */
const MOST_CLASSES = 12;

/** The classes of a table: all in their order, or of many the likeliest. */
function likeliest(probabilities) {
  const classes = probabilities.map((_, i) => i);
  if (classes.length <= MOST_CLASSES) return classes;
  return classes.sort((a, b) => probabilities[b] - probabilities[a]).slice(0, MOST_CLASSES);
}

/** One model's classes: probability and logit now, and their change against the run with nothing blocked. */
function table(model, run, clean) {
  const blocked = clean !== run;
  const rows = likeliest(run.prediction.probabilities).map(i => {
    const name = model.classes[i];
    const [now, before] = [run, clean].map(each => each.prediction.probabilities[i]);
    const logit = run.prediction.logits[i];
    const bars = el("td", { className: "bars" }, bar(now, "now"));
    if (blocked) bars.append(bar(before, "before"));
    const row = el("tr", {}, el("th", { scope: "row" }, name), bars, el("td", { className: "n" }, percent(now)),
      el("td", { className: "n quiet logit" }, decimal(logit)));
    row.dataset.probability = now;
    if (blocked) {
      const points = el("td", { className: "n change" }, `${signed(100 * (now - before), 1)} points`);
      row.dataset.unblocked = before;
      row.append(points, el("td", { className: "n quiet logit" }, signed(logit - clean.prediction.logits[i])));
    }
    return row;
  });
  const names = ["Class", "", "Probability", "Logit", ...(blocked ? ["Change", "Change of logit"] : [])];
  const head = names.map((text, i) => el("th", { scope: "col", className: `${i > 1 ? "n" : ""} ${text.includes("ogit") ? "logit" : ""}` }, text));
  const more = rows.length < model.classes.length ? [el("caption", { className: "quiet" }, `The ${rows.length} likeliest of ${model.classes.length} classes`)] : [];
  return el("table", { className: "prediction" }, ...more, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
}

/** The predicted class in a few words, for where heads are blocked. */
function echoOf({ model, run, clean }, several) {
  if (!run.prediction || !clean.prediction) return "";
  const { probabilities } = run.prediction;
  const best = probabilities.indexOf(Math.max(...probabilities));
  const before = clean.prediction.probabilities[best];
  const changed = clean === run ? "" : `; with nothing blocked ${percent(before)}: ${signed(100 * (probabilities[best] - before), 1)} points`;
  return `${several ? `${model.name}: ` : ""}${model.classes[best]} ${percent(probabilities[best])}${changed}.`;
}

/** The blocked heads and edges; each button takes one away. */
function chips(tokens) {
  const chip = (text, remove) => {
    const button = el("button", { type: "button", title: "Unblock" }, `${text} ×`);
    button.addEventListener("click", remove);
    return button;
  };
  const heads = state.ablate.map(([layer, head]) => chip(`head ${layer}.${head}`, () => toggleHead(layer, head)));
  const token = i => (i < tokens.length ? `“${tokens[i].text}”` : `token ${i}`);
  const edges = state.edges.map(edge => {
    const where = edge.layer === null && edge.head === null ? "all heads" : `${edge.layer ?? "*"}.${edge.head ?? "*"}`;
    return chip(`${token(edge.query)} → ${token(edge.key)} in ${where}`, () => toggleEdge(edge));
  });
  byId("changes").replaceChildren(...heads, ...edges);
  byId("clear").disabled = heads.length + edges.length === 0;
}

/** Shows the predictions of all models. */
export function showPredictions(view) {
  const several = view.shown.length > 1;
  const nodes = view.shown.map(({ model, run, clean }) => {
    const name = several ? [el("h3", {}, model.name)] : [];
    const content = run.prediction && clean.prediction
      ? el("div", { className: "scroll" }, table(model, run, clean))
      : el("p", { className: "quiet" }, "This model has no classifier, so it predicts no class.");
    return el("div", { className: "model" }, ...name, content);
  });
  byId("prediction").querySelector(".models").replaceChildren(...nodes);
  byId("echo").replaceChildren(...view.shown.map(each => el("span", { className: "line" }, echoOf(each, several))));
  chips(view.shown[0].run.tokens);
}

/** The chips alone, when a run failed: so a wrong edge of a link can be taken away. */
export const showChanges = () => chips([]);

/** How many tokens were read, and how long it took. */
export function statusOf(view) {
  const { run } = view.shown[view.active];
  const cut = run.truncated ? ` The model reads no more: ${run.truncated} tokens are cut off.` : "";
  const pointer = state.token === null ? "" : ` Chosen: ${nameOf(run.tokens, Math.min(state.token, run.tokens.length - 1))}.`;
  return `${run.tokens.length} tokens, ${decimal(run.milliseconds, 1)} ms.${cut}${pointer}`;
}
