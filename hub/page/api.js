// The hub's HTTP interface (described in /openapi.json). JSON in and out; every address is relative, so the hub may live under a path.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let onLoggedOut = () => {};

/** Say what to do when the hub asks for its token. */
export function whenLoggedOut(f) {
  onLoggedOut = f;
}

/** Return path?a=1&a=2&b=3; empty, null and false values are left out. */
export function address(path, parameters = {}) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "" && each !== false) given.append(name, each);
    }
  }
  const text = given.toString();
  return text ? `${path}?${text}` : path;
}

export const get = (path, parameters, signal) => ask("GET", address(path, parameters), undefined, signal);
export const post = (path, body, signal) => ask("POST", path, body ?? {}, signal);
export const putTo = (path, body) => ask("PUT", path, body);

/** Send a file as it is. */
export const postFile = (path, file) => send("POST", path, file, file.type || "audio/wav");

function ask(method, path, body, signal) {
  const text = body === undefined ? undefined : JSON.stringify(body);
  return send(method, path, text, text === undefined ? null : "application/json", signal);
}

async function send(method, path, body, kind, signal) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal,
      credentials: "same-origin",
      headers: { Accept: "application/json", ...(kind ? { "Content-Type": kind } : {}) },
      body,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The hub does not answer. Is this device on the network?");
  }
  if (answer.status === 401) onLoggedOut();
  const text = await answer.text();
  if (!answer.ok) throw new ApiError(answer.status, messageOf(text, answer));
  return text ? JSON.parse(text) : null;
}

function messageOf(text, answer) {
  try {
    const found = JSON.parse(text);
    if (typeof found.error === "string") return found.error;
    if (typeof found.detail === "string") return found.detail;
    if (Array.isArray(found.detail)) return found.detail.map((each) => `${each.loc?.at(-1)}: ${each.msg}`).join("; ");
  } catch {
    // not JSON: a proxy's page
  }
  return `The hub answered ${answer.status} ${answer.statusText}`;
}
