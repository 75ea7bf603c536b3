// Search: a question in plain words, or an example, over everything that every recorder has ever heard.

import { address, get, postFile } from "./api.js";
import { combobox } from "./combobox.js";
import { count, h, put, say, toSide } from "./dom.js";
import { filterBar, parametersOf } from "./filters.js";
import { heatmap } from "./heatmap.js";
import { putMap } from "./map.js";
import { falseAlarms, icon, keysHelp, listenToKeys, resultItem } from "./result.js";
import { dayAfter, zone } from "./times.js";

const TOPS = ["20", "50", "100", "200"];
const STRICT = [["", "the nearest, however far"], ["10", "10 false a day at most"], ["1", "1 false a day at most"], ["0.1", "1 false in 10 days at most"]];
const EXAMPLES = ["a dog barking", "rain on leaves", "an owl calling at night", "people talking", "frogs"];
const CLIP = "M8 12.5 14.5 6a3 3 0 0 1 4.5 4.5L10 19a5 5 0 0 1-7-7l8-8";

let example = null; // the last file that was asked with: an address cannot hold it

/** Show the view. page: {place, state, go(parts), devices(), suggestions()}. */
export async function showSearch({ place, state, go, devices: loadDevices, suggestions: loadSuggestions }) {
  let known = [];
  const ask = (text) => go({ query: text, like: "", example: "" });
  const box = combobox({ id: "query", label: "What to look for, in plain words", placeholder: "a chainsaw in the distance", value: state.query, suggestions: () => known, chosen: ask });
  const file = h("input", { type: "file", accept: "audio/*,image/*", hidden: true, onchange: () => {
    example = file.files[0] ?? null;
    if (example) go({ query: "", like: "", example: example.name }, true);
  } });
  const label = "Search with a recording or a picture";
  const byExample = h("button", { type: "button", class: "example", title: label, "aria-label": label, onclick: () => file.click() }, icon(CLIP));
  const form = h("form", { class: "asking", role: "search", onsubmit: (event) => {
    event.preventDefault();
    ask(box.input.value.trim());
  } }, box.element, byExample, file, h("button", { class: "primary", type: "submit" }, "Search"));
  const filters = h("div");
  const answer = h("div", { class: "answer", "aria-busy": "false" });
  const side = h("aside", { class: "side", tabindex: "-1", "aria-label": "Where and when" });
  put(place, h("section", { class: "hero", "aria-label": "Search" }, form, filters), h("div", { class: "columns" }, answer, side));
  const isAsked = Boolean(state.query || state.like || state.example);
  if (!isAsked) box.input.focus({ preventScroll: true });

  const devices = await loadDevices();
  put(filters, filterBar(state, devices, go));
  loadSuggestions().then(
    (found) => {
      known = found;
      if (!isAsked) put(answer, welcome(found, devices, ask));
    },
    (error) => say(error.message, true),
  );
  if (isAsked) return showAnswer(answer, side, devices, state, go);
  put(answer, welcome([], devices, ask));
  showMap(side, devices, [], state, go);
}

function welcome(known, devices, ask) {
  const texts = [...new Set([...known.map((each) => each.text), ...EXAMPLES])].slice(0, 10);
  const n = devices.reduce((sum, device) => sum + (device.n_observations ?? 0), 0);
  return h(
    "div",
    { class: "welcome" },
    h("h1", {}, "Ask every recorder, every year, in plain words"),
    h("p", {}, `${n.toLocaleString("en")} windows from ${count(devices.length, "recorder")} are here as codes of 32 bytes; their sound stayed in the field until you ask for it.`),
    h("div", { class: "examples" }, texts.map((text) => h("button", { type: "button", class: "chip", onclick: () => ask(text) }, text))),
  );
}

function asked(state, filters) {
  const given = { top: state.top || 50, per_day: state.per_day, ...filters };
  if (state.query) return get("api/search", { query: state.query, ...given });
  if (state.like) return get("api/search", { like: state.like, ...given });
  if (example?.name !== state.example) throw new Error("An example is not kept in the address: choose the file again.");
  return postFile(address("api/search", given), example);
}

async function showAnswer(answer, side, devices, state, go) {
  const filters = parametersOf(state);
  const name = state.query || (state.like ? `like observation ${state.like}` : state.example);
  answer.setAttribute("aria-busy", "true");
  put(answer, h("p", { class: "loading" }, "Searching …"));
  const began = performance.now();
  let found;
  try {
    found = await asked(state, filters);
  } catch (error) {
    put(answer, h("p", { class: "error", role: "alert" }, error.message));
    return;
  } finally {
    answer.setAttribute("aria-busy", "false");
  }
  const took = `${Math.round(performance.now() - began)} ms`;
  const results = found.results.map((each) => ({ ...each, query: name, text: name, clip: undefined, verdict: null }));
  const list = h("ol", { class: "results", "aria-label": "Results, best first" });
  listenToKeys(list);
  const title = `${count(results.length, "result")} for “${name}”`;
  put(
    answer,
    h("div", { class: "answer-head" }, h("div", { role: "status" }, h("h1", { class: "small" }, title)), h("p", { class: "note" }, took), h("div", { class: "choices" }, choice("How strict", STRICT, state.per_day, (per_day) => go({ per_day })), choice("How many", TOPS.map((n) => [n, `${n} best`]), state.top || "50", (top) => go({ top })), toSide(side))),
    notes(found),
    results.length ? [keysHelp(), list] : h("p", { class: "empty" }, "Nothing fits. Widen the filters, or allow more false alarms a day."),
  );
  const options = { names: new Map(devices.map((device) => [device.name, device.title])), onDevice: (device) => go({ device: [device] }), onLike: (like) => go({ query: "", example: "", like }) };
  const draw = () => put(list, results.map((each, i) => resultItem(each, { ...options, rank: i + 1 })));
  draw();
  showMap(side, devices, results, state, go);
  if (!results.length) return;
  get("api/marks", { query: name, uid: results.map((each) => each.uid) }).then(
    ({ marks }) => {
      for (const each of results) Object.assign(each, marks[each.uid]);
      draw();
    },
    (error) => say(error.message, true),
  );
  showHeat(side, found, results, state, filters, go);
}

function choice(label, options, value, changed) {
  const box = h("select", { "aria-label": label, onchange: () => changed(box.value) }, options.map(([key, text]) => h("option", { value: key }, text)));
  box.value = value ?? "";
  return box;
}

function notes(found) {
  const lines = (found.notes ?? []).map((text) => h("p", { class: "note" }, text));
  const perDay = found.false_alarms_per_day;
  if (perDay !== undefined && perDay !== null) lines.unshift(h("p", { class: "note" }, `Of the background alone: ${falseAlarms(perDay)} at each recorder.`));
  return lines;
}

function showHeat(side, found, results, state, filters, go) {
  const isKnown = results[0].false_alarms_per_day !== null && results[0].false_alarms_per_day !== undefined;
  const perDay = Number(state.per_day) || 1;
  const near = isKnown ? { per_day: perDay } : { max_distance: Math.max(...results.map((each) => each.distance)) };
  const card = h("section", { class: "card" }, h("h2", {}, "When"), h("p", { class: "loading" }, "Counting …"));
  side.prepend(card);
  const choose = (day, nDays, hour) => go({ from: day, to: dayAfter(day, nDays - 1), period: "", hours: `${hour}-${(hour + 1) % 24}` });
  get("api/heatmap", { code: found.code, ...near, ...filters, offset_s: zone() * 60 }).then(
    (heat) => {
      const note = `windows within ${heat.max_distance} bits${isKnown ? `: the background alone gives ${perDay} a day at each recorder` : ""}`;
      put(card, h("h2", {}, "When"), heatmap(heat, { what: "windows", width: Math.max(280, side.clientWidth - 36), choose }), h("p", { class: "note" }, note));
    },
    (error) => put(card, h("h2", {}, "When"), h("p", { class: "error" }, error.message)),
  );
}

function showMap(side, devices, results, state, go) {
  const counts = new Map();
  for (const each of results) counts.set(each.device, (counts.get(each.device) ?? 0) + 1);
  const place = h("div");
  side.append(h("section", { class: "card" }, h("h2", {}, "Where"), place));
  const chosen = new Set(state.device ?? []);
  putMap(place, devices, {
    weight: (device) => counts.get(device.name) ?? 0,
    told: (device) => count(counts.get(device.name) ?? 0, "result"),
    isChosen: (device) => chosen.has(device.name),
    box: state.box,
    boxed: (box) => go({ box }),
    choose: (device) => {
      if (!chosen.delete(device.name)) chosen.add(device.name);
      go({ device: [...chosen] });
    },
  });
}
