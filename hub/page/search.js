// Search: a question in plain words over everything that every recorder has ever heard.

import { get } from "./api.js";
import { combobox } from "./combobox.js";
import { count, h, put, say } from "./dom.js";
import { filterBar, parametersOf } from "./filters.js";
import { heatmap } from "./heatmap.js";
import { putMap } from "./map.js";
import { falseAlarms, keysHelp, listenToKeys, resultItem } from "./result.js";
import { zone } from "./times.js";

const TOPS = [20, 50, 100, 200];
const EXAMPLES = ["a dog barking", "rain on leaves", "an owl calling at night", "chainsaw", "people talking", "frogs"];

/** Show the view. page: {place, state, go(parts), devices(), suggestions()}. */
export async function showSearch({ place, state, go, devices: loadDevices, suggestions: loadSuggestions }) {
  let known = [];
  const ask = (text) => go({ query: text });
  const box = combobox({ id: "query", label: "What to look for, in plain words", placeholder: "a chainsaw in the distance", value: state.query, suggestions: () => known, chosen: ask });
  const form = h("form", { class: "ask", role: "search", onsubmit: (event) => {
    event.preventDefault();
    ask(box.input.value.trim());
  } }, box.element, h("button", { class: "primary", type: "submit" }, "Search"));
  const filters = h("div");
  const answer = h("div", { class: "answer", "aria-busy": "false" });
  const side = h("aside", { class: "side", "aria-label": "Where and when" });
  put(place, h("section", { class: "hero", "aria-label": "Search" }, form, filters), h("div", { class: "columns" }, answer, side));
  if (!state.query) box.input.focus({ preventScroll: true });

  const devices = await loadDevices();
  put(filters, filterBar(state, devices, go));
  loadSuggestions().then((found) => {
    known = found;
    if (!state.query) put(answer, welcome(found, devices, ask));
  }, (error) => say(error.message, true));
  if (!state.query) {
    put(answer, welcome([], devices, ask));
    showMap(side, devices, [], state, go);
    return;
  }
  await showAnswer(answer, side, devices, state, go);
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

async function showAnswer(answer, side, devices, state, go) {
  const names = new Map(devices.map((device) => [device.name, device.title]));
  const filters = parametersOf(state);
  const asked = { query: state.query, top: state.top || 50, ...filters, per_day: state.per_day };
  answer.setAttribute("aria-busy", "true");
  put(answer, h("p", { class: "loading" }, "Searching …"));
  let found;
  const began = performance.now();
  try {
    found = await get("api/search", asked);
  } catch (error) {
    put(answer, h("p", { class: "error", role: "alert" }, error.message));
    return;
  } finally {
    answer.setAttribute("aria-busy", "false");
  }
  const took_ms = performance.now() - began;
  const results = found.results.map((each) => ({ ...each, query: state.query, text: state.query, clip: undefined, verdict: null }));
  const list = h("ol", { class: "results", "aria-label": "Results, best first" });
  listenToKeys(list);
  const tops = h("select", { "aria-label": "How many", onchange: (event) => go({ top: event.target.value }) }, TOPS.map((n) => h("option", { value: n }, `${n} best`)));
  tops.value = String(state.top || 50);
  const perDay = h("select", { "aria-label": "How strict", onchange: (event) => go({ per_day: event.target.value }) }, [["", "the nearest, however far"], ["10", "10 false a day at most"], ["1", "1 false a day at most"], ["0.1", "1 false in 10 days at most"]].map(([value, text]) => h("option", { value }, text)));
  perDay.value = state.per_day ?? "";
  put(
    answer,
    h("div", { class: "answer-head" }, h("h1", { class: "small" }, `${count(results.length, "result")} for “${state.query}”`), h("p", { class: "note" }, `${Math.round(took_ms)} ms`), h("div", { class: "choices" }, perDay, tops)),
    notes(found),
    results.length ? list : h("p", { class: "empty" }, "Nothing fits. Widen the filters, or allow more false alarms a day."),
    results.length ? keysHelp() : null,
  );
  say(`${count(results.length, "result")}.`);
  const options = { names, onDevice: (name) => go({ device: [name] }) };
  const draw = () => put(list, results.map((each, i) => resultItem(each, { ...options, rank: i + 1 })));
  draw();
  showMap(side, devices, results, state, go);
  if (!results.length) return;
  get("api/marks", { query: state.query, uid: results.map((each) => each.uid) }).then((marks) => {
    for (const each of results) Object.assign(each, marks.marks[each.uid]);
    draw();
  }, (error) => say(error.message, true));
  const bits = found.max_distance ?? Math.max(...results.map((each) => each.distance));
  const heat = h("section", { class: "card" }, h("h2", {}, "When"), h("p", { class: "loading" }, "Counting …"));
  side.prepend(heat);
  get("api/heatmap", { query: state.query, max_distance: bits, ...filters, offset_s: zone() * 60 }).then(
    (counted) => put(heat, h("h2", {}, "When"), heatmap(counted, { what: "windows", width: Math.max(300, side.clientWidth - 34), choose: (day, nDays, hour) => go({ from: day, to: dayOf(day, nDays), period: "", hours: `${hour}-${(hour + 1) % 24}` }) }), h("p", { class: "note" }, `windows within ${bits} bits of the question`)),
    (error) => put(heat, h("h2", {}, "When"), h("p", { class: "error" }, error.message)),
  );
}

function dayOf(day, nDays) {
  return new Date(Date.parse(`${day}T00:00:00Z`) + (nDays - 1) * 86_400_000).toISOString().slice(0, 10);
}

function notes(found) {
  const lines = (found.notes ?? []).map((text) => h("p", { class: "note" }, text));
  const perDay = found.false_alarms_per_day;
  if (perDay !== undefined && perDay !== null) lines.unshift(h("p", { class: "note" }, `The bundle expects ${falseAlarms(perDay)} for each recorder.`));
  return lines;
}

function showMap(side, devices, results, state, go) {
  const counts = new Map();
  for (const each of results) counts.set(each.device, (counts.get(each.device) ?? 0) + 1);
  const card = h("section", { class: "card" }, h("h2", {}, "Where"));
  const place = h("div");
  card.append(place);
  side.append(card);
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

