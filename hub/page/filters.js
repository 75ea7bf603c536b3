// Filters that search and detections share: a period of days, hours of the day, one or more recorders, a box on the map.

import { h, put } from "./dom.js";
import { dayAfter, now, startOf, today, zone } from "./times.js";

const PERIODS = [["", "All time"], ["1", "Last 24 hours"], ["7", "Last 7 days"], ["30", "Last 30 days"], ["days", "From … to …"]];
const HOURS = [["", "Any hour"], ["20-5", "Night, 20–05"], ["4-8", "Dawn, 04–08"], ["8-18", "Day, 08–18"], ["18-21", "Dusk, 18–21"], ["hours", "From … to …"]];

/** Return the hours of "20-5": 20, 21, 22, 23, 0, ... 4; all of them where it starts as it ends. */
export function hoursOf(text) {
  if (!text) return [];
  const [from, to] = text.split("-").map(Number);
  const n = (to - from + 24) % 24 || 24;
  return Array.from({ length: n }, (_, i) => (from + i) % 24);
}

/** Return what the hub is asked for, of the state in the page's address. */
export function parametersOf(state, now_ms = now()) {
  const given = { device: state.device ?? [], box: state.box?.join(",") };
  if (Number(state.period)) given.since = new Date(now_ms - Number(state.period) * 86_400_000).toISOString();
  if (state.from) given.since = startOf(state.from);
  if (state.to) given.until = startOf(dayAfter(state.to));
  if (state.hours) Object.assign(given, { hours: hoursOf(state.hours).join(","), offset_s: zone() * 60 });
  return given;
}

/** Return a form part with the filters; changed(state) is called with the new parts of the state. */
export function filterBar(state, devices, changed) {
  const period = select("Period", PERIODS, state.from || state.to ? "days" : state.period ?? "", (value) => {
    if (value === "days") changed({ period: "", from: dayAfter(today(), -30), to: today() });
    else changed({ period: value, from: "", to: "" });
  });
  const days = state.from || state.to ? [date("From", state.from, (value) => changed({ from: value })), date("To", state.to, (value) => changed({ to: value }))] : [];
  const isOwn = state.hours && !HOURS.some(([value]) => value === state.hours);
  const hours = select("Hours", HOURS, isOwn ? "hours" : state.hours ?? "", (value) => changed({ hours: value === "hours" ? "0-6" : value }));
  const [from, to] = (state.hours || "0-0").split("-");
  const ownHours = isOwn ? [hour("from", from, (value) => changed({ hours: `${value}-${to}` })), hour("to", to, (value) => changed({ hours: `${from}-${value}` }))] : [];
  const choice = select("Recorder", [["", "All"], ...devices.map((device) => [device.name, device.title || device.name])], state.device?.length === 1 ? state.device[0] : "", (value) => changed({ device: value ? [value] : [] }));
  const chips = [];
  if ((state.device?.length ?? 0) > 1) chips.push(chip(`${state.device.length} recorders`, () => changed({ device: [] })));
  if (state.box) chips.push(chip("box on the map", () => changed({ box: null })));
  return h("div", { class: "filters", role: "group", "aria-label": "Filters" }, period, days, hours, ownHours, choice, put(h("span", { class: "chips" }), chips));
}

function select(label, options, value, changed) {
  const box = h("select", { onchange: () => changed(box.value) }, options.map(([key, text]) => h("option", { value: key }, text)));
  box.value = value;
  return h("label", { class: "field" }, h("span", {}, label), box);
}

function date(label, value, changed) {
  const box = h("input", { type: "date", value: value ?? "", onchange: () => changed(box.value) });
  return h("label", { class: "field" }, h("span", {}, label), box);
}

function hour(label, value, changed) {
  const box = h("input", { type: "number", min: 0, max: 23, value, onchange: () => changed(String(Math.min(23, Math.max(0, Math.floor(Number(box.value) || 0))))) });
  return h("label", { class: "field narrow" }, h("span", {}, `Hour ${label}`), box);
}

function chip(text, removed) {
  return h("button", { type: "button", class: "chip", onclick: removed, "aria-label": `Remove the filter: ${text}` }, text, " ×");
}
