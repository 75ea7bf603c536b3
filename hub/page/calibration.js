// What recorders have learnt at their sites: how many false alarms the fleet is to expect of each query, beside what people found.

import { count, h } from "./dom.js";
import { ago } from "./times.js";

const HEAD = ["Query", "Recorders", "Expected a day", "Wanted a day", "Detections", "Right", "Wrong"];
const SITES = ["Recorder", "Query", "Bits", "Expected a day", "Wanted a day", "Hours heard", "Detections", "Wrong", "As of"];

/** Return a section about the answer of api/calibration, null where no recorder has told anything yet. */
export function calibration({ queries }) {
  if (!queries.length) return null;
  const pooled = queries.map((each) => [each.name, each.n_recorders, rate(each.expected_per_day), rate(each.wanted_per_day), each.n_detections, each.n_right, each.n_wrong]);
  const sites = queries.flatMap((each) => each.sites.map((site) => [site.title || site.device, each.name, site.threshold_bits === null ? "–" : site.threshold_bits.toFixed(1), rate(site.expected_per_day), rate(site.wanted_per_day), site.learnt ? String(Math.round(site.hours)) : "too few", site.n_detections, site.n_wrong, ago(site.at)]));
  return h(
    "section",
    { class: "card", "aria-labelledby": "calibration" },
    h("h2", { id: "calibration" }, "False alarms to expect"),
    h("p", { class: "note" }, "Of all recorders together, in a day of listening, by the background that each has learnt at its site; beside all detections there and what people said of them."),
    table("False alarms to expect of each query", HEAD, pooled),
    h("details", {}, h("summary", {}, `Each recorder by itself, ${count(sites.length, "line")}`), table("False alarms to expect at each recorder", SITES, sites)),
  );
}

function table(label, head, rows) {
  const body = rows.map(([first, ...others]) => h("tr", {}, h("th", { scope: "row" }, first), others.map((each) => h("td", {}, typeof each === "number" ? each.toLocaleString("en") : each))));
  return h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label }, h("table", { class: "explain" }, h("thead", {}, h("tr", {}, head.map((each) => h("th", { scope: "col" }, each)))), h("tbody", {}, body)));
}

function rate(n) {
  if (n === null) return "–";
  return n >= 0.01 ? String(Number(n.toPrecision(3))) : "< 0.01";
}
