// What the page shows, as one object; and the same in the hash of its address, so that a link restores it.

const DEFAULTS = {
  text: "This film was not bad at all.",
  model: 0,
  layer: 0,
  head: 0,
  /** Blocked heads, [layer, head]. */
  ablate: [],
  /** Blocked edges, {layer, head, query, key}; a layer or head of null means all. */
  edges: [],
  method: "integrated_gradients",
  /** The class that attributions explain; null for the predicted one. */
  class: null,
  baseline: "pad",
  sort: "order",
  view: "map",
  /** The token whose attention is shown on the text. */
  token: null,
  direction: "to",
  lens: false,
};

/** The state of the page. Read it anywhere; change it by `change` only. */
export const state = structuredClone(DEFAULTS);

const listeners = [];

/** Calls `listener` after each change. */
export const onChange = listener => listeners.push(listener);

/** Changes parts of the state. Edges are places in a text, so another text has none. */
export function change(parts) {
  if (parts.text !== undefined && parts.text !== state.text && parts.edges === undefined) {
    parts = { ...parts, edges: [], token: null };
  }
  Object.assign(state, parts);
  for (const listener of listeners) listener();
}

const sameHead = ([layer, head], other) => layer === other[0] && head === other[1];
const sameEdge = (a, b) => ["layer", "head", "query", "key"].every(name => a[name] === b[name]);

/** Whether a head is blocked. */
export const isAblated = (layer, head) => state.ablate.some(other => sameHead(other, [layer, head]));

/** Blocks a head, or unblocks it. */
export function toggleHead(layer, head) {
  const ablate = isAblated(layer, head)
    ? state.ablate.filter(other => !sameHead(other, [layer, head]))
    : [...state.ablate, [layer, head]].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  change({ ablate });
}

/** Blocks an edge, or unblocks it. */
export function toggleEdge(edge) {
  const without = state.edges.filter(other => !sameEdge(other, edge));
  change({ edges: without.length < state.edges.length ? without : [...state.edges, edge] });
}

/** The blocked edges that concern a head. */
export const edgesOf = (layer, head) =>
  state.edges.filter(edge => (edge.layer ?? layer) === layer && (edge.head ?? head) === head);

const WORDS = ["text", "method", "baseline", "sort", "view", "direction"];

/** The state as the hash of an address: what differs from the defaults, and the text. */
export function toHash() {
  const query = new URLSearchParams({ text: state.text });
  for (const name of WORDS.slice(1)) if (state[name] !== DEFAULTS[name]) query.set(name, state[name]);
  for (const name of ["model", "class", "token"]) if (state[name] !== DEFAULTS[name]) query.set(name, state[name]);
  if (state.layer || state.head) query.set("head", `${state.layer}.${state.head}`);
  if (state.ablate.length) query.set("ablate", state.ablate.map(head => head.join(".")).join(","));
  const all = value => value ?? "*";
  const edges = state.edges.map(edge => [all(edge.layer), all(edge.head), edge.query, edge.key].join("."));
  if (edges.length) query.set("edges", edges.join(","));
  if (state.lens) query.set("lens", "1");
  return `#${query}`;
}

/** Numbers written `1.2.3`, `*` being null; nothing where one is not a whole number or their count is another. */
function numbers(text, count) {
  const parts = text.split(".").map(part => (part === "*" ? null : /^\d{1,6}$/.test(part) ? Number(part) : NaN));
  return parts.length === count && !parts.some(Number.isNaN) ? parts : undefined;
}

const list = (text, count) => (text ? text.split(",").map(part => numbers(part, count)) : []);

/**
 * The state that a hash says. What it does not say has its default. Returns the parts and what could not be read, in words.
 */
export function fromHash(hash) {
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  const parts = structuredClone(DEFAULTS);
  const unread = [];
  const read = (name, value, use) => {
    if (value.every(part => part !== undefined)) use(value);
    else unread.push(`${name}=${query.get(name)}`);
  };
  for (const name of WORDS) if (query.has(name)) parts[name] = query.get(name);
  for (const name of ["model", "class", "token"]) {
    if (query.has(name)) read(name, [numbers(query.get(name), 1)], ([[value]]) => (parts[name] = value));
  }
  if (query.has("head")) read("head", [numbers(query.get("head"), 2)], ([[a, b]]) => Object.assign(parts, { layer: a ?? 0, head: b ?? 0 }));
  read("ablate", list(query.get("ablate"), 2), value => (parts.ablate = value));
  read("edges", list(query.get("edges"), 4), value => {
    parts.edges = value.map(([layer, head, query, key]) => ({ layer, head, query, key }));
  });
  parts.lens = query.get("lens") === "1";
  return { parts, unread };
}

/** Drops from parts what a model with these numbers of layers and heads, and these choices, has not. Names what it dropped. */
export function fitTo(parts, { models, choices }) {
  const dropped = [];
  const [layers, heads] = ["layers", "heads"].map(name => Math.max(...models.map(model => model[name])));
  const inside = (layer, head) => layer !== null && head !== null && layer < layers && head < heads;
  const keep = (name, fine, words) => {
    if (fine) return;
    dropped.push(words);
    parts[name] = DEFAULTS[name];
  };
  keep("model", parts.model < models.length, `model ${parts.model}`);
  for (const [name, values] of Object.entries(choices)) keep(name, values.includes(parts[name]), `${name} ${parts[name]}`);
  const classes = Math.max(...models.map(model => model.classes?.length ?? 0));
  keep("class", parts.class === null || parts.class < classes, `class ${parts.class}`);
  if (!inside(parts.layer, parts.head)) {
    dropped.push(`head ${parts.layer}.${parts.head}`);
    Object.assign(parts, { layer: 0, head: 0 });
  }
  parts.ablate = parts.ablate.filter(([layer, head]) => inside(layer, head) || !dropped.push(`head ${layer}.${head}`));
  parts.edges = parts.edges.filter(edge => {
    const fine = inside(edge.layer ?? 0, edge.head ?? 0) && edge.query !== null && edge.key !== null;
    return fine || !dropped.push(`edge ${edge.query} to ${edge.key}`);
  });
  return dropped;
}
