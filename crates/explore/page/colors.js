// Colour scales that people with any kind of colour vision can read: lightness alone orders them. Each is a short table of sRGB
// colours at equal distances, interpolated linearly.

/** From nothing to much. It starts at the page's own background. */
const SEQUENTIAL = {
  light: ["#fdfdfb", "#dcebc4", "#93cfae", "#46a3a6", "#2b6f96", "#2c3d7d", "#230f4c"],
  dark: ["#16181a", "#35285f", "#34538c", "#2b7f8e", "#3aac7c", "#98d255", "#f6ec86"],
};

/** From against (blue) over nothing to for (orange). */
const DIVERGING = {
  light: ["#0b4f94", "#5b9bd0", "#b8d6ec", "#fdfdfb", "#fbd3a4", "#ec933c", "#b04f00"],
  dark: ["#7cc0f5", "#3f82bd", "#234a70", "#16181a", "#6d3c12", "#bd6a1a", "#ffb060"],
};

const parse = color => [1, 3, 5].map(at => parseInt(color.slice(at, at + 2), 16));

function interpolate(table, share) {
  const place = Math.min(Math.max(share, 0), 1) * (table.length - 1);
  const from = Math.min(Math.floor(place), table.length - 2);
  const [a, b] = [parse(table[from]), parse(table[from + 1])];
  return a.map((value, i) => Math.round(value + (b[i] - value) * (place - from)));
}

/** Whether the page is dark now. */
export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

const theme = () => (isDark() ? "dark" : "light");

const tables = new Map();

/** 256 colours of a scale as the words of an ImageData (little-endian RGBA). */
function words(name, scale) {
  const key = `${name} ${theme()}`;
  if (!tables.has(key)) {
    tables.set(key, Uint32Array.from({ length: 256 }, (_, i) => {
      const [r, g, b] = interpolate(scale[theme()], i / 255);
      return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
    }));
  }
  return tables.get(key);
}

/** 256 colours from nothing to much. */
export const sequentialWords = () => words("sequential", SEQUENTIAL);

/** 256 colours from -1 to 1. */
export const divergingWords = () => words("diverging", DIVERGING);

const css = ([r, g, b]) => `rgb(${r}, ${g}, ${b})`;

/** The WCAG 2 relative luminance of an sRGB colour. */
function luminance(rgb) {
  const [r, g, b] = rgb.map(value => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** A background and the ink that is read best on it. At luminance 0.179 black and white have equal contrast. */
const painted = rgb => ({ background: css(rgb), ink: luminance(rgb) > 0.179 ? "#111" : "#fff" });

/** The colour of a share from 0 to 1; square root, because most attention is small. */
export const sequential = share => painted(interpolate(SEQUENTIAL[theme()], Math.sqrt(Math.max(share, 0))));

/** The colour of a number from -1 to 1. */
export const diverging = value => painted(interpolate(DIVERGING[theme()], (value + 1) / 2));

/** The scales as CSS gradients, for legends. The sequential one is linear in what `sequential` draws, so its middle is a quarter. */
export const gradient = isDiverging =>
  `linear-gradient(to right, ${(isDiverging ? DIVERGING : SEQUENTIAL)[theme()].join(", ")})`;
