// Detections: what the recorders decided on by themselves, for people to say whether it is right, and to take along.

import { address, get } from "./api.js";
import { count, h, put, say, toSide } from "./dom.js";
import { filterBar, parametersOf } from "./filters.js";
import { heatmap } from "./heatmap.js";
import { putMap } from "./map.js";
import { keysHelp, listenToKeys, resultItem } from "./result.js";
import { dayAfter, zone } from "./times.js";

const PAGE = 40;
const FORMATS = [
  ["csv", "CSV", "a table for R, pandas, spreadsheets"],
  ["parquet", "Parquet", "the same, typed and small"],
  ["raven", "Raven", "selection tables, one for each recording"],
  ["audacity", "Audacity", "label tracks, one for each recording"],
  ["camtrap", "Camtrap DP", "a data package, version 1.0.2"],
  ["dwc", "Darwin Core", "occurrences, for GBIF and others"],
];
const SAID = [["", "All"], ["none", "Nobody said yet"], ["right", "Right"], ["wrong", "Wrong"], ["unsure", "Unsure"]];

/** Show the view. page: as for search. */
export async function showDetections({ place, state, go, devices: loadDevices }) {
  const onLike = (uid) => location.assign(`#/search?like=${uid}`);
  put(place, h("p", { class: "loading" }, "Loading …"));
  const filters = parametersOf(state);
  const asked = { query: state.query, verdict: state.verdict, ...filters };
  const [devices, queries, first] = await Promise.all([loadDevices(), get("api/queries"), get("api/detections", { ...asked, limit: PAGE })]);
  const names = new Map(devices.map((device) => [device.name, device.title]));
  const list = h("ol", { class: "results", "aria-label": "Detections, the newest first" });
  listenToKeys(list);
  const more = h("button", { type: "button", class: "more" }, "More");
  const tally = h("p", { class: "note", role: "status" });
  let shown = 0;
  const told = { ...first.verdicts };

  function tell() {
    const n = (told.right ?? 0) + (told.wrong ?? 0);
    const share = n ? `${told.right ?? 0} of ${n} judged are right (${Math.round((100 * (told.right ?? 0)) / n)} %)` : "none judged yet: say of a few whether they are right";
    tally.textContent = `${count(first.total, "detection")}, ${share}`;
  }
  function add(found) {
    for (const each of found.detections) {
      let before = each.verdict;
      list.append(resultItem(each, { names, onDevice: (name) => go({ device: [name] }), onLike, onVerdict: (judged) => {
        if (before) told[before] -= 1;
        told[judged.verdict] = (told[judged.verdict] ?? 0) + 1;
        before = judged.verdict;
        tell();
      } }));
    }
    shown += found.detections.length;
    more.hidden = shown >= first.total;
  }
  more.addEventListener("click", async () => {
    more.disabled = true;
    try {
      add(await get("api/detections", { ...asked, limit: PAGE, offset: shown }));
    } catch (error) {
      say(error.message, true);
    }
    more.disabled = false;
  });
  const side = h("aside", { class: "side", tabindex: "-1", "aria-label": "When, where, and to take along" });
  put(
    place,
    h("section", { class: "hero", "aria-label": "Which detections" }, h("div", { class: "filters" }, choice("Query", [["", "All queries"], ...queries.queries.map((each) => [each.query, `${each.query} (${each.n.toLocaleString("en")})`])], state.query, (query) => go({ query })), choice("Verdict", SAID, state.verdict, (verdict) => go({ verdict })), filterBar(state, devices, go))),
    h("div", { class: "columns" }, h("div", { class: "answer" }, h("div", { class: "answer-head" }, h("h1", { class: "small" }, state.query || "Detections"), tally, h("div", { class: "choices" }, toSide(side))), first.total ? [keysHelp(), list] : h("p", { class: "empty" }, "No detections here. Widen the filters, or write a watchlist."), more), side),
  );
  add(first);
  tell();
  showSide(side, devices, first, state, go, asked, filters);
}

function choice(label, options, value, changed) {
  const box = h("select", { onchange: () => changed(box.value) }, options.map(([key, text]) => h("option", { value: key }, text)));
  box.value = value ?? "";
  return h("label", { class: "field" }, h("span", {}, label), box);
}

function showSide(side, devices, first, state, go, asked, filters) {
  const heat = h("section", { class: "card" }, h("h2", {}, "When"));
  const where = h("section", { class: "card" }, h("h2", {}, "Where"));
  const place = h("div");
  where.append(place);
  put(side, heat, where, exportsCard(asked));
  const counts = first.by_device ?? {};
  putMap(place, devices, {
    weight: (device) => counts[device.name] ?? 0,
    told: (device) => count(counts[device.name] ?? 0, "detection"),
    isChosen: (device) => (state.device ?? []).includes(device.name),
    box: state.box,
    boxed: (box) => go({ box }),
    choose: (device) => go({ device: (state.device ?? []).includes(device.name) ? [] : [device.name] }),
  });
  get("api/heatmap", { query: state.query, ...filters, offset_s: zone() * 60 }).then(
    (counted) => heat.append(heatmap(counted, { what: "detections", width: Math.max(280, side.clientWidth - 36), choose: (day, nDays, hour) => go({ from: day, to: dayAfter(day, nDays - 1), period: "", hours: `${hour}-${(hour + 1) % 24}` }) })),
    (error) => heat.append(h("p", { class: "error" }, error.message)),
  );
}

function exportsCard(asked) {
  return h("section", { class: "card" }, h("h2", {}, "Take along"), h("p", { class: "note" }, "What the filters let through:"), h("ul", { class: "exports" }, FORMATS.map(([format, name, what]) => h("li", {}, h("a", { href: address(`api/exports/${format}`, asked), download: true }, name), h("span", {}, what)))));
}
