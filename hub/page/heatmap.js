// Activity of a query: hour of day x date. A grid that arrow keys walk through; what a cell holds is read out.

import { h, put, s } from "./dom.js";
import { dayAfter, daysBetween, zoneName } from "./times.js";

const HOURS = 24;
const LEFT = 30;
const TOP = 6;
const ROW = 8;
const MAX_COLUMNS = 400; // beyond, one column is a week

/**
 * Return a heat map.
 * heat: {first, last, cells: [[day, hour, count]]}, days as YYYY-MM-DD of the shown clock;
 * choose(day, nDays, hour): called when somebody picks a cell.
 */
export function heatmap(heat, { what = "detections", choose = null, width = 640 } = {}) {
  if (!heat?.cells?.length) return h("p", { class: "empty" }, `No ${what} with a known time here.`);
  const nDays = daysBetween(heat.first, heat.last) + 1;
  const perColumn = nDays > MAX_COLUMNS ? 7 : 1;
  const n = Math.ceil(nDays / perColumn);
  const counts = grid(heat, n, perColumn);
  const most = Math.max(1, ...counts.flat());
  const column = Math.min(40, Math.max(3, Math.floor((width - LEFT - 6) / n)));
  const picture = s("svg", { class: "heat", width: LEFT + n * column + 2, height: TOP + HOURS * ROW + 18, "aria-hidden": "true" });
  for (let hour = 0; hour < HOURS; hour += 6) {
    picture.append(s("text", { x: LEFT - 5, y: TOP + hour * ROW + 7, class: "axis", "text-anchor": "end" }, `${String(hour).padStart(2, "0")}h`));
  }
  dates(picture, heat.first, n, perColumn, column);
  const background = s("rect", { x: LEFT, y: TOP, width: n * column, height: HOURS * ROW, class: "heat-ground" });
  picture.append(background);
  counts.forEach((hours, x) =>
    hours.forEach((value, hour) => {
      if (!value) return;
      const level = Math.min(5, 1 + Math.floor((5 * Math.log1p(value)) / Math.log1p(most + 0.001)));
      picture.append(s("rect", { x: LEFT + x * column, y: TOP + hour * ROW, width: Math.max(1, column - 1), height: ROW - 1, class: `heat-${level}` }));
    }),
  );
  const cursor = s("rect", { width: column, height: ROW, class: "heat-cursor", visibility: "hidden" });
  picture.append(cursor);
  const told = h("p", { class: "heat-told", "aria-live": "polite" }, summary(counts, what));
  const label = `${what} by hour of day and date, ${heat.first} to ${heat.last}, ${zoneName()}. Arrow keys move from cell to cell${choose ? ", Enter shows what is in it" : ""}.`;
  const box = h("div", { class: "heat-box", tabindex: "0", role: "application", "aria-label": label }, picture);
  let at = null;

  function move(x, hour) {
    at = [Math.min(n - 1, Math.max(0, x)), Math.min(HOURS - 1, Math.max(0, hour))];
    cursor.setAttribute("x", LEFT + at[0] * column - 0.5);
    cursor.setAttribute("y", TOP + at[1] * ROW - 0.5);
    cursor.setAttribute("visibility", "visible");
    const day = dayAfter(heat.first, at[0] * perColumn);
    const days = perColumn === 1 ? day : `week of ${day}`;
    told.textContent = `${days}, ${String(at[1]).padStart(2, "0")}–${String(at[1] + 1).padStart(2, "0")} h: ${counts[at[0]][at[1]]} ${what}`;
    const left = LEFT + at[0] * column;
    if (left < box.scrollLeft + LEFT || left > box.scrollLeft + box.clientWidth - column) box.scrollLeft = left - box.clientWidth / 2;
  }
  function pick() {
    if (at && choose) choose(dayAfter(heat.first, at[0] * perColumn), perColumn, at[1]);
  }
  function under(event) {
    const frame = picture.getBoundingClientRect();
    const x = Math.floor((event.clientX - frame.left - LEFT) / column);
    const hour = Math.floor((event.clientY - frame.top - TOP) / ROW);
    return x >= 0 && x < n && hour >= 0 && hour < HOURS ? [x, hour] : null;
  }
  picture.addEventListener("pointermove", (event) => {
    const found = under(event);
    if (found) move(...found);
  });
  picture.addEventListener("click", (event) => {
    const found = under(event);
    if (!found) return;
    move(...found);
    pick();
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) {
      event.preventDefault();
      if (at) move(at[0] + step[0], at[1] + step[1]);
      else move(n - 1, 0);
    } else if (event.key === "Enter") pick();
  });
  return h("figure", { class: "heat-figure" }, box, h("figcaption", {}, told, scale(most)), byHour(counts, what));
}

function grid(heat, n, perColumn) {
  const counts = Array.from({ length: n }, () => new Array(HOURS).fill(0));
  for (const [day, hour, value] of heat.cells) {
    const x = Math.floor(daysBetween(heat.first, day) / perColumn);
    if (x >= 0 && x < n) counts[x][hour] += value;
  }
  return counts;
}

function dates(picture, first, n, perColumn, column) {
  const apart = Math.max(1, Math.ceil(76 / column));
  for (let x = 0; x < n; x += apart) {
    const day = dayAfter(first, x * perColumn);
    const left = LEFT + x * column;
    if (left + 66 > LEFT + n * column && x > 0) break; // it would be cut off
    picture.append(
      s("line", { x1: left, x2: left, y1: TOP + HOURS * ROW, y2: TOP + HOURS * ROW + 4, class: "axis-line" }),
      s("text", { x: left, y: TOP + HOURS * ROW + 15, class: "axis" }, day),
    );
  }
}

function summary(counts, what) {
  const hours = Array.from({ length: HOURS }, (_, hour) => counts.reduce((sum, column) => sum + column[hour], 0));
  const total = hours.reduce((sum, value) => sum + value, 0);
  const busiest = hours.indexOf(Math.max(...hours));
  return `${total.toLocaleString("en")} ${what}, most of them at ${String(busiest).padStart(2, "0")}–${String(busiest + 1).padStart(2, "0")} h`;
}

function scale(most) {
  return h("span", { class: "heat-scale", "aria-hidden": "true" }, "1", ...[1, 2, 3, 4, 5].map((level) => h("i", { class: `heat-${level}` })), String(most));
}

function byHour(counts, what) {
  const body = h("tbody");
  for (let hour = 0; hour < HOURS; hour += 1) {
    const total = counts.reduce((sum, column) => sum + column[hour], 0);
    body.append(h("tr", {}, h("th", { scope: "row" }, `${String(hour).padStart(2, "0")}:00`), h("td", {}, String(total))));
  }
  return h("details", {}, h("summary", {}, "As a table, by hour"), put(h("table", { class: "plain" }), h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Hour"), h("th", { scope: "col" }, what))), body));
}
