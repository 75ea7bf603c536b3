// Recorders: where they stand and how they are. Health means that codes arrive, not that a process is alive.

import { get, post } from "./api.js";
import { calibration } from "./calibration.js";
import { count, h, put, say } from "./dom.js";
import { putMap } from "./map.js";
import { ago, when } from "./times.js";

const STATES = { pending: "waits for approval", silent: "silent", late: "late", never: "nothing yet", good: "codes arrive", revoked: "revoked" };
const ORDER = Object.keys(STATES);

/** Show the view. page: as for search. */
export async function showRecorders({ place, state, go, devices: loadDevices }) {
  put(place, h("p", { class: "loading" }, "Loading …"));
  const devices = await loadDevices(true);
  const [health, learnt] = await Promise.all([get("api/health"), get("api/calibration")]);
  const sorted = [...devices].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.name.localeCompare(b.name));
  const where = h("div");
  const cards = h("ul", { class: "cards" });
  const refresh = () => go({}, true);
  const tally = ORDER.map((each) => [each, devices.filter((device) => device.state === each).length]).filter(([, n]) => n);
  put(
    place,
    h("section", { class: "hero line" }, h("h1", { class: "small" }, count(devices.length, "recorder")), h("p", { class: "tally" }, tally.map(([each, n]) => h("span", { class: `pill state-${each}` }, `${n} ${STATES[each]}`))), enrolButton()),
    health.conflicts.length ? conflicts(health.conflicts) : null,
    h("div", { class: "columns" }, h("div", { class: "answer" }, devices.length ? cards : nobody()), h("aside", { class: "side", "aria-label": "Map" }, h("section", { class: "card" }, h("h2", {}, "Where"), where))),
    calibration(learnt),
  );
  const watched = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watched.unobserve(entry.target);
      showCoverage(entry.target);
    }
  });
  for (const device of sorted) {
    const card = recorder(device, refresh);
    cards.append(card);
    if (device.n_observations) watched.observe(card.querySelector(".coverage"));
  }
  const find = (name) => cards.querySelector(`[data-device="${CSS.escape(name)}"]`);
  putMap(where, devices, { told: (device) => STATES[device.state], choose: (device) => {
    const card = find(device.name);
    card?.querySelector("details")?.setAttribute("open", "");
    card?.scrollIntoView({ behavior: "smooth", block: "center" });
    card?.querySelector("summary")?.focus({ preventScroll: true });
  } });
  if (state.device?.[0]) find(state.device[0])?.querySelector("details").setAttribute("open", "");
}

function nobody() {
  return h("div", { class: "empty" }, h("p", {}, "No recorder has reported yet. Make an enrolment code, and on the recorder run:"), h("pre", {}, "edge-sync --hub http://THIS-HUB --code THE-CODE"));
}

function recorder(device, refresh) {
  const facts = h("dl", { class: "facts" });
  for (const [name, value, isBad] of factsOf(device)) facts.append(h("div", { class: isBad ? "is-bad" : "" }, h("dt", {}, name), h("dd", {}, value)));
  return h(
    "li",
    { class: "recorder card", "data-device": device.name },
    h("div", { class: "recorder-head" }, h("h2", {}, device.title || device.name), h("span", { class: `pill state-${device.state}` }, STATES[device.state] ?? device.state)),
    device.title ? h("p", { class: "note" }, device.name) : null,
    facts,
    h("div", { class: "coverage", "data-name": device.name }),
    device.status === "pending" ? approval(device, refresh) : null,
    h("details", {}, h("summary", {}, "Details and settings"), details(device, refresh)),
  );
}

function factsOf(device) {
  const health = device.health ?? {};
  const facts = [["Last code", device.last_code_at ? ago(device.last_code_at) : "none yet", ["silent", "late"].includes(device.state)]];
  facts.push(["Windows", (device.n_observations ?? 0).toLocaleString("en")], ["Detections", (device.n_detections ?? 0).toLocaleString("en")]);
  if (device.n_missing) facts.push(["Still to come", device.n_missing.toLocaleString("en")]);
  if (device.n_dropped) facts.push(["Dropped", device.n_dropped.toLocaleString("en"), true]);
  const shown = [
    ["battery_percent", "Battery", (value) => `${Math.round(value)} %`, (value) => value < 20],
    ["battery_v", "Battery", (value) => `${value.toFixed(2)} V`, () => false],
    ["temperature_c", "Temperature", (value) => `${Math.round(value)} °C`, (value) => value >= 75],
    ["disk_free_bytes", "Room left", (value) => bytes(value), (value) => value < 200e6],
  ];
  for (const [key, name, text, isBad] of shown) if (typeof health[key] === "number") facts.push([name, text(health[key]), isBad(health[key])]);
  return facts;
}

function bytes(n) {
  return n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : `${Math.round(n / 1e6)} MB`;
}

async function showCoverage(place) {
  try {
    const found = await get(`api/devices/${encodeURIComponent(place.dataset.name)}/coverage`);
    if (found.share === null) return;
    const percent = `${Math.round(100 * found.share)} %`;
    const isYoung = found.days[0].hours[0] === null; // it began in these days: the share is of what came after
    const period = isYoung ? "since its first code" : `of the last ${count(found.days.length, "day")}`;
    const label = `Listened in ${percent} of the minutes ${period}`;
    const strip = h("div", { class: "strip", role: "img", "aria-label": label }, found.days.map(dayOfStrip));
    put(place, h("p", {}, h("b", {}, percent), ` of the minutes ${period}`), strip);
  } catch (error) {
    put(place, h("p", { class: "error" }, error.message));
  }
}

function dayOfStrip({ day, hours }) {
  const cells = hours.map((share, hour) => {
    if (share === null) return h("i", { class: "is-outside" });
    const title = `${day} ${String(hour).padStart(2, "0")} h UTC: ${Math.round(100 * share)} %`;
    return h("i", { style: `--share:${share.toFixed(2)}`, title });
  });
  return h("div", { class: "strip-day" }, cells);
}

function approval(device, refresh) {
  return h("div", { class: "approval" }, h("p", {}, "Compare with the fingerprint that edge-sync shows on the recorder: ", h("code", { class: "print" }, device.fingerprint)), h("button", { type: "button", class: "primary", onclick: () => change(device, { status: "enrolled" }, `${device.name} may send now.`, refresh) }, "Approve"), h("button", { type: "button", onclick: () => change(device, { status: "revoked" }, `${device.name} is refused.`, refresh) }, "Refuse"));
}

function details(device, refresh) {
  const title = h("input", { value: device.title, maxlength: 80 });
  const latitude = h("input", { type: "number", step: "any", min: -90, max: 90, value: device.latitude ?? "" });
  const longitude = h("input", { type: "number", step: "any", min: -180, max: 180, value: device.longitude ?? "" });
  const number = (box) => (box.value === "" ? null : Number(box.value));
  const form = h("form", { class: "settings", onsubmit: (event) => {
    event.preventDefault();
    change(device, { title: title.value.trim(), latitude: number(latitude), longitude: number(longitude) }, "Kept.", refresh);
  } }, h("label", { class: "field" }, h("span", {}, "Called"), title), h("label", { class: "field" }, h("span", {}, "Latitude"), latitude), h("label", { class: "field" }, h("span", {}, "Longitude"), longitude), h("button", { class: "primary", type: "submit" }, "Keep"));
  const revoke = device.status === "enrolled" ? h("button", { type: "button", class: "danger", onclick: () => {
    if (confirm(`Refuse everything that ${device.name} sends from now on? What is here stays.`)) change(device, { status: "revoked" }, `${device.name} is revoked.`, refresh);
  } }, "Revoke") : device.status === "revoked" ? h("button", { type: "button", onclick: () => change(device, { status: "enrolled" }, `${device.name} may send again.`, refresh) }, "Allow again") : null;
  const log = h("div", { class: "log" });
  const other = Object.entries(device.health ?? {}).filter(([, value]) => typeof value !== "object");
  const box = h("div", {}, form, h("p", { class: "note" }, `Key ${device.fingerprint}. Known since ${when(device.added_at)}; last delivery ${ago(device.seen_at)}.`), other.length ? h("details", {}, h("summary", {}, `Last heartbeat${device.health_at ? `, ${ago(device.health_at)}` : ""}`), h("table", { class: "plain" }, h("tbody", {}, other.map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, key), h("td", {}, String(value))))))) : null, log, revoke);
  const load = h("button", { type: "button", class: "link", onclick: async () => {
    try {
      const found = await get(`api/devices/${encodeURIComponent(device.name)}`);
      put(log, events(found));
    } catch (error) {
      say(error.message, true);
    }
  } }, "Gaps and what was lost");
  log.append(load);
  return box;
}

function events(found) {
  const lines = found.events.map((each) => h("tr", {}, h("td", {}, each.kind), h("td", {}, each.source), h("td", {}, each.n_samples ? `${each.duration_s.toFixed(1)} s` : ""), h("td", {}, each.reason)));
  const dropped = found.dropped.map((each) => h("tr", {}, h("td", {}, "dropped"), h("td", {}, `seq ${each.first_seq}…`), h("td", {}, count(each.n, "window")), h("td", {}, each.reason)));
  if (!lines.length && !dropped.length) return h("p", { class: "note" }, "No gaps, nothing lost.");
  return h("div", { class: "scroll" }, h("table", { class: "plain" }, h("thead", {}, h("tr", {}, ["What", "Where", "How much", "Why"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, lines, dropped)));
}

async function change(device, body, told, refresh) {
  try {
    await post(`api/devices/${encodeURIComponent(device.name)}`, body);
    say(told);
    refresh();
  } catch (error) {
    say(error.message, true);
  }
}

function conflicts(found) {
  return h("section", { class: "warning", role: "alert" }, h("h2", {}, "A memory card was copied, or an old one put back"), h("ul", {}, found.map((each) => h("li", {}, `${each.device}: ${count(each.n, "record")} of its ${each.stream} came again with another content, last ${ago(each.last_at)}. What came first is kept.`))));
}

function enrolButton() {
  return h("button", { type: "button", class: "enrol", onclick: async () => {
    try {
      const made = await post("api/enrolment-codes");
      const dialog = h("dialog", { "aria-labelledby": "code-title" }, h("form", { method: "dialog" }, h("h2", { id: "code-title" }, "Enrolment code"), h("p", {}, "For one recorder, once. It is shown only here."), h("p", { class: "code" }, made.code), h("p", { class: "note" }, `Valid until ${when(made.until)}.`), h("button", { class: "primary" }, "Done")));
      dialog.addEventListener("close", () => dialog.remove());
      document.body.append(dialog);
      dialog.showModal();
    } catch (error) {
      say(error.message, true);
    }
  } }, "New enrolment code");
}
