// Elements and numbers.

/** The element with this id. */
export const byId = id => document.getElementById(id);

/** A new element. Properties that the element has not are attributes; children are nodes or texts. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** A new SVG element. */
export function svgEl(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A number with this many decimals, and a real minus; zero has none. */
export function decimal(value, digits = 3) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** The same with its sign. */
export function signed(value, digits = 3) {
  const text = decimal(value, digits);
  return value > 0 && Number(text) !== 0 ? `+${text}` : text;
}

/** Enough decimals for a number that may be small. */
export function short(value) {
  const size = Math.abs(value);
  if (size !== 0 && size < 0.0005) return value.toExponential(1).replaceAll("-", "−");
  return decimal(value, size >= 100 ? 1 : 3);
}

/** Shows a line of an error in a section, or takes it away. */
export function showError(section, message) {
  const line = section.querySelector(":scope > .error, :scope > details > .error");
  line.textContent = message ?? "";
  line.hidden = !message;
}

/** Fills a choice with [value, text] pairs, and keeps what was chosen where it still exists. */
export function fillSelect(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => el("option", { value, textContent: text })));
  select.value = options.some(([value]) => value === chosen) ? chosen : options[0]?.[0];
}

/** Calls `listener` at most once in `wait` milliseconds, after the last call. */
export function debounced(wait, listener) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(listener, wait, ...values);
  };
}
