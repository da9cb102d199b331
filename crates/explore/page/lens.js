// The logit lens: what the masked-LM head would say after each layer.
import { sequential } from "./colors.js";
import { byId, decimal, el, showError } from "./dom.js";
import { ask } from "./server.js";
import { change, state } from "./state.js";

/** Tokens in one table: each costs a product with the whole vocabulary in every layer. */
const WINDOW = 32;
const lens = byId("lens");
/** The first token of the table. */
let first = 0;
let seen = null;

/** Connects the buttons, once. `again` shows the lens anew. */
export function startLens(again) {
  const details = byId("lens-details");
  details.addEventListener("toggle", () => details.open !== state.lens && change({ lens: details.open }));
  const turn = by => {
    first = Math.max(0, first + by);
    again();
  };
  byId("lens-back").addEventListener("click", () => turn(-WINDOW));
  byId("lens-on").addEventListener("click", () => turn(WINDOW));
}

/** Layers from the last to the first, as the stack is drawn; the input's embeddings are layer 0. */
function tableOf(answer, tokens) {
  const columns = answer.layers[0].map((_, i) => tokens[answer.from + i]);
  const head = columns.map(token => el("th", { scope: "col" }, token.text));
  const rows = answer.layers.map((positions, layer) => {
    const cells = positions.map(words => {
      const [word, probability] = words[0] ?? ["", 0];
      const cell = el("td", {}, word, el("small", {}, decimal(probability, 2)));
      const color = sequential(probability);
      Object.assign(cell.style, { backgroundColor: color.background, color: color.ink });
      cell.title = words.map(([each, share]) => `${each} ${decimal(share)}`).join("\n");
      return cell;
    });
    const name = layer === 0 ? "embeddings" : `layer ${layer - 1}`;
    return el("tr", {}, el("th", { scope: "row" }, name), ...cells);
  });
  return el("table", { className: "lens" }, el("thead", {}, el("tr", {}, el("th"), ...head)), el("tbody", {}, ...rows.reverse()));
}

/** Colours anew after a change of theme. */
export function drawLens() {
  if (!seen) return;
  byId("lens-table").replaceChildren(tableOf(seen.answer, seen.tokens));
}

function nothing(message) {
  seen = null;
  byId("lens-table").replaceChildren();
  byId("lens-pages").hidden = true;
  showError(lens, message);
}

/** Requests and shows the lens of the active model, if it is open. */
export async function showLens(view) {
  byId("lens-details").open = state.lens;
  if (!state.lens) return;
  const { model, run } = view.shown[view.active];
  const { tokens } = run;
  if (first >= tokens.length) first = 0;
  const count = Math.min(WINDOW, tokens.length - first);
  try {
    const answer = await ask("panel lens", "/api/lens", { ...view.requestOf(model), from: first, count });
    if (!answer || !view.isCurrent()) return;
    if (answer.unavailable) {
      nothing(answer.unavailable);
      return;
    }
    showError(lens, null);
    seen = { answer, tokens };
    drawLens();
    byId("lens-pages").hidden = tokens.length <= WINDOW;
    byId("lens-range").textContent = `tokens ${first} to ${first + count - 1} of ${tokens.length}`;
    byId("lens-back").disabled = first === 0;
    byId("lens-on").disabled = first + count >= tokens.length;
  } catch (error) {
    nothing(error.message);
  }
}
