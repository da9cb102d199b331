// Calls of the server, or of the answers that a saved page holds.

const saved = document.getElementById("snapshot");

/** The saved page's data; null where a server answers. */
export const snapshot = saved ? JSON.parse(saved.textContent) : null;

/** Answers by request, the least recently used first. A map of 512 tokens takes 2.4 MB as text and as numbers: 115 MB in all. */
const CACHED = 48;
const answers = new Map();

/** The request of each slot that is not answered yet. */
const open = new Map();

/** JSON with sorted keys, so that equal requests are equal texts. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical)}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map(key => `${JSON.stringify(key)}:${canonical(value[key])}`)}}`;
}

const keyOf = (path, request) => `${path} ${canonical(request ?? null)}`;
for (const { path, request, response } of snapshot?.answers ?? []) answers.set(keyOf(path, request), response);

async function fetchAnswer(path, request, signal) {
  if (snapshot) throw new Error("This saved page does not hold that. `vitrine explore` computes it.");
  const options = request
    ? { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(request), signal }
    : { signal };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is `vitrine explore` still running?");
  }
  const answer = await response.json().catch(error => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (!response.ok || answer === null) {
    throw new Error(answer?.error ?? `The server answered ${path} with status ${response.status}.`);
  }
  return answer;
}

/**
 * The answer to a request. A later request of the same slot aborts this one, which then is null. Errors have one clear line.
 */
export async function ask(slot, path, request) {
  const key = keyOf(path, request);
  const current = open.get(slot);
  if (current && current.key === key) return current.promise;
  current?.controller.abort();
  open.delete(slot);
  if (answers.has(key)) {
    const answer = answers.get(key);
    if (!snapshot) {
      answers.delete(key);
      answers.set(key, answer);
    }
    return answer;
  }
  const controller = new AbortController();
  const promise = fetchAnswer(path, request, controller.signal)
    .then(answer => {
      answers.set(key, answer);
      if (answers.size > CACHED) answers.delete(answers.keys().next().value);
      return answer;
    })
    .catch(error => {
      if (controller.signal.aborted) return null;
      throw error;
    })
    .finally(() => {
      if (open.get(slot)?.controller === controller) open.delete(slot);
    });
  open.set(slot, { key, controller, promise });
  return promise;
}

/** Ends the requests whose slots begin with this. */
export function abort(prefix) {
  for (const [slot, { controller }] of open) {
    if (!slot.startsWith(prefix)) continue;
    controller.abort();
    open.delete(slot);
  }
}

const decoded = new WeakMap();

/** The bytes of a field of an answer that is written in base64. */
export function bytesOf(answer, field) {
  if (!decoded.has(answer)) {
    const text = atob(answer[field]);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    decoded.set(answer, bytes);
  }
  return decoded.get(answer);
}

/** The same as f32. All platforms that run browsers are little-endian. */
export const floatsOf = (answer, field) => new Float32Array(bytesOf(answer, field).buffer);
