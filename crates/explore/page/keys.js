// The keyboard, and its help.
import { byId, el } from "./dom.js";

/** What the arrow keys and Enter do where the focus is. */
const LOCAL = [
  ["Tab", "go on to the next control, map or text"],
  ["← → ↑ ↓", "in the heads: choose a head; in the map: read a cell; in a text: go from token to token"],
  ["Enter", "in the map or in a text: show what the token attends to"],
];

/** Connects the keys: {key: [words, action]}. Keys that are typed into a field stay there. */
export function startKeys(actions) {
  const help = byId("help");
  const all = { "?": ["this help", () => help.showModal()], ...actions };
  const rows = [...Object.entries(all).map(([key, [words]]) => [key, words]), ...LOCAL];
  const row = ([key, words]) => el("tr", {}, el("th", { scope: "row" }, el("kbd", {}, key)), el("td", {}, words));
  byId("help-table").tBodies[0].replaceChildren(...rows.map(row));
  byId("help-open").addEventListener("click", () => help.showModal());
  byId("help-close").addEventListener("click", () => help.close());
  document.addEventListener("keydown", event => {
    const field = event.target.closest("textarea, input, select, dialog");
    if (event.key === "Escape" && field && field.matches("textarea")) field.blur();
    if (field || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (!Object.hasOwn(all, event.key)) return;
    event.preventDefault();
    all[event.key][1]();
  });
}
