// Tokens as people read them: the text itself, cut where the tokenizer cut it.
import { el } from "./dom.js";

/** A token's name in a sentence: its number, and its piece of the vocabulary. */
export const nameOf = (tokens, i) => `token ${i} “${tokens[i].text}”`;

/**
 * The text in pieces: {token, text}. Pieces without a token are what lies between tokens, or was cut out. A special token, and one
 * that shares its characters with the token before, shows its piece of the vocabulary.
 */
export function piecesOf(text, tokens) {
  const pieces = [];
  let end = 0;
  const between = text => ({ text, cut: text.trim() !== "" });
  // What no token covers at the end of the text stands before the special tokens that close it.
  let last = tokens.length;
  while (last > 0 && tokens[last - 1].special) last -= 1;
  tokens.forEach((token, i) => {
    if (i === last && last > 0 && end < text.length) {
      pieces.push(between(text.slice(end)));
      end = text.length;
    }
    if (token.special || token.end <= end) {
      pieces.push({ token: i, text: token.text, piece: true });
      return;
    }
    const start = Math.max(token.start, end);
    if (start > end) pieces.push(between(text.slice(end, start)));
    pieces.push({ token: i, text: text.slice(start, token.end) });
    end = token.end;
  });
  if (end < text.length) pieces.push(between(text.slice(end)));
  return pieces;
}

/** A text whose tokens can be pointed at, chosen by click or Enter, walked through by arrows, and coloured. */
export class TokenText {
  /** `pick(i)` is called for a chosen token, `point(i)` for one under the pointer or with focus, `point(null)` for none. */
  constructor(container, { pick, point }) {
    this.container = container;
    this.spans = [];
    const indexOf = event => {
      const span = event.target.closest("[data-token]");
      return span && container.contains(span) ? Number(span.dataset.token) : null;
    };
    container.addEventListener("click", event => {
      const i = indexOf(event);
      if (i !== null) {
        this.rove(i);
        pick?.(i);
      }
    });
    for (const name of ["pointerover", "focusin"]) {
      container.addEventListener(name, event => indexOf(event) !== null && point?.(indexOf(event)));
    }
    for (const name of ["pointerleave", "focusout"]) container.addEventListener(name, () => point?.(null));
    container.addEventListener("keydown", event => {
      const i = indexOf(event);
      if (i === null || event.ctrlKey || event.metaKey || event.altKey) return;
      const last = this.spans.length - 1;
      const places = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: last };
      if (event.key in places) this.rove(Math.min(Math.max(places[event.key], 0), last), true);
      else if (event.key === "Enter" || event.key === " ") pick?.(i);
      else return;
      event.preventDefault();
    });
  }

  /** Shows the tokens of a run of a text. */
  show(text, tokens) {
    if (this.tokens === tokens && this.text === text) return;
    [this.text, this.tokens, this.spans] = [text, tokens, []];
    const nodes = piecesOf(text, tokens).map(piece => {
      if (piece.token === undefined) {
        if (!piece.cut) return piece.text;
        return el("span", { className: "cut", title: "The model does not read this part." }, piece.text);
      }
      const token = tokens[piece.token];
      const classes = ["token", token.special && "special", token.continues && "continues", piece.piece && "piece"];
      const span = el("span", { className: classes.filter(Boolean).join(" "), role: "button", tabindex: "-1" }, piece.text);
      span.dataset.token = piece.token;
      this.spans.push(span);
      return span;
    });
    this.container.replaceChildren(...nodes);
    if (this.spans.length) this.spans[0].tabIndex = 0;
  }

  /** Makes a token the one that the Tab key reaches. */
  rove(i, focus = false) {
    for (const span of this.spans) span.tabIndex = -1;
    this.spans[i].tabIndex = 0;
    if (focus) this.spans[i].focus();
  }

  /** Colours the tokens: `look(i)` has a background with its ink, or null, and the words that say the value. */
  paint(look) {
    this.spans.forEach((span, i) => {
      const { color, words } = look(i);
      span.style.backgroundColor = color?.background ?? "";
      span.style.color = color?.ink ?? "";
      const continues = this.tokens[i].continues ? ", continues the word" : "";
      span.setAttribute("aria-label", `${nameOf(this.tokens, i)}${continues}${words ? `: ${words}` : ""}`);
      span.title = `${nameOf(this.tokens, i)}${words ? `: ${words}` : ""}`;
    });
  }

  /** Marks the chosen token. */
  select(chosen) {
    this.spans.forEach((span, i) => span.setAttribute("aria-pressed", String(i === chosen)));
  }
}
