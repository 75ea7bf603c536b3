// Map of recorders: their places on a grid of degrees, true to scale at its middle latitude. No tiles, no requests to others.

import { h, put, s } from "./dom.js";

const HEIGHT = 300;
const MARGIN = 34;
const METRES_PER_DEGREE = 111_320;

/**
 * Return a map of devices that have a place.
 * weight(device): number that sets the size of a dot; choose(device): a dot was picked; isChosen(device);
 * boxed([south, west, north, east]): a box was drawn; box: one that is shown.
 */
export function map(devices, { weight = () => 0, choose = null, isChosen = () => false, boxed = null, box = null, width = 420, told = (device) => "" } = {}) {
  const placed = devices.filter((device) => device.latitude !== null && device.longitude !== null);
  if (!placed.length) return h("p", { class: "empty" }, "No recorder has a place yet. Give one under Recorders.");
  const view = viewOf(placed, width);
  const picture = s("svg", { class: "map", viewBox: `0 0 ${width} ${HEIGHT}`, role: "group", "aria-label": `Map of ${placed.length} recorders, north is up` });
  picture.append(s("rect", { x: 0, y: 0, width, height: HEIGHT, class: "map-ground" }));
  graticule(picture, view, width);
  if (box) picture.append(s("rect", { ...frame(view, box), class: "map-box" }));
  const most = Math.max(1, ...placed.map(weight));
  const names = [];
  for (const device of [...placed].sort((a, b) => weight(b) - weight(a))) {
    const [x, y] = view.point(device.latitude, device.longitude);
    const value = weight(device);
    const label = `${device.title || device.name}${told(device) ? `: ${told(device)}` : ""}`;
    const dot = s("g", {
      class: `dot state-${device.state ?? "none"}${value ? " has" : ""}${isChosen(device) ? " is-chosen" : ""}`,
      transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
      ...(choose ? { tabindex: 0, role: "button", "aria-pressed": String(isChosen(device)), "aria-label": label } : { role: "img", "aria-label": label }),
      onclick: choose && (() => choose(device)),
      onkeydown: choose && ((event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        choose(device);
      }),
    });
    dot.append(s("title", {}, label), s("circle", { r: 14, class: "touch" }), s("circle", { r: value ? 6 + 9 * Math.sqrt(value / most) : 5, class: "mark" }));
    const free = names.every(([left, top]) => Math.abs(left - x) > 80 || Math.abs(top - y) > 13);
    if (free) {
      names.push([x, y]);
      const isRight = x > width - 110;
      dot.append(s("text", { x: isRight ? -16 : 16, y: 4, class: "name", "text-anchor": isRight ? "end" : "start" }, (device.title || device.name).slice(0, 18)));
    }
    picture.append(dot);
  }
  scaleBar(picture, view);
  if (boxed) drawBoxes(picture, view, width, boxed);
  const missing = devices.length - placed.length;
  return h(
    "figure",
    { class: "map-figure" },
    picture,
    h("figcaption", {}, boxed ? "Drag to draw a box; pick a dot for one recorder." : "", missing ? ` ${missing} without a place.` : ""),
  );
}

function viewOf(placed, width) {
  const latitudes = placed.map((device) => device.latitude);
  const longitudes = placed.map((device) => device.longitude);
  const middle = [(Math.min(...latitudes) + Math.max(...latitudes)) / 2, (Math.min(...longitudes) + Math.max(...longitudes)) / 2];
  const squeeze = Math.max(0.05, Math.cos((middle[0] * Math.PI) / 180));
  const high = Math.max(0.002, Math.max(...latitudes) - Math.min(...latitudes));
  const wide = Math.max(0.002, (Math.max(...longitudes) - Math.min(...longitudes)) * squeeze);
  const perDegree = Math.min((HEIGHT - 2 * MARGIN) / high, (width - 2 * MARGIN - 40) / wide);
  return {
    perDegree,
    point: (latitude, longitude) => [width / 2 + (longitude - middle[1]) * squeeze * perDegree, HEIGHT / 2 - (latitude - middle[0]) * perDegree],
    place: (x, y) => [middle[0] - (y - HEIGHT / 2) / perDegree, middle[1] + (x - width / 2) / squeeze / perDegree],
  };
}

function stepOf(degrees) {
  const power = 10 ** Math.floor(Math.log10(degrees));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= degrees);
}

function graticule(picture, view, width) {
  const [north, west] = view.place(0, 0);
  const [south, east] = view.place(width, HEIGHT);
  const [latitudes, longitudes] = [stepOf((north - south) / 5), stepOf((east - west) / 5)];
  const digits = (step) => Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  for (let at = Math.ceil(south / latitudes) * latitudes; at < north; at += latitudes) {
    const y = view.point(at, 0)[1];
    picture.append(s("line", { x1: 0, x2: width, y1: y, y2: y, class: "grid" }), y < HEIGHT - 18 && y > 34 ? s("text", { x: 4, y: y - 3, class: "axis" }, `${Math.abs(at).toFixed(digits(latitudes))}°${at < 0 ? "S" : "N"}`) : "");
  }
  for (let at = Math.ceil(west / longitudes) * longitudes; at < east; at += longitudes) {
    const x = view.point(0, at)[0];
    picture.append(s("line", { x1: x, x2: x, y1: 0, y2: HEIGHT, class: "grid" }), x < width - 46 ? s("text", { x: x + 3, y: HEIGHT - 5, class: "axis" }, `${Math.abs(at).toFixed(digits(longitudes))}°${at < 0 ? "W" : "E"}`) : "");
  }
}

function scaleBar(picture, view) {
  const metres = stepOf((70 / view.perDegree) * METRES_PER_DEGREE);
  const length = (metres / METRES_PER_DEGREE) * view.perDegree;
  const text = metres >= 1000 ? `${metres / 1000} km` : `${metres} m`;
  picture.append(s("path", { d: `M10 12v5h${length.toFixed(1)}v-5`, class: "scale" }), s("text", { x: 14 + length, y: 17, class: "axis" }, text));
}

function frame(view, [south, west, north, east]) {
  const [left, top] = view.point(north, west);
  const [right, bottom] = view.point(south, east);
  return { x: left, y: top, width: Math.max(1, right - left), height: Math.max(1, bottom - top) };
}

function drawBoxes(picture, view, width, boxed) {
  let from = null;
  let drawn = null;
  const at = (event) => {
    const frameOf = picture.getBoundingClientRect();
    return [((event.clientX - frameOf.left) / frameOf.width) * width, ((event.clientY - frameOf.top) / frameOf.height) * HEIGHT];
  };
  picture.addEventListener("pointerdown", (event) => {
    if (event.target.closest(".dot")) return;
    from = at(event);
    drawn = s("rect", { class: "map-box" });
    picture.append(drawn);
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [x, y] = at(event);
    for (const [name, value] of Object.entries({ x: Math.min(x, from[0]), y: Math.min(y, from[1]), width: Math.abs(x - from[0]), height: Math.abs(y - from[1]) })) drawn.setAttribute(name, value);
  });
  picture.addEventListener("pointercancel", () => {
    drawn?.remove();
    from = null;
  });
  picture.addEventListener("pointerup", (event) => {
    if (!from) return;
    const [x, y] = at(event);
    const [left, top] = [Math.min(x, from[0]), Math.min(y, from[1])];
    const [right, bottom] = [Math.max(x, from[0]), Math.max(y, from[1])];
    from = null;
    drawn.remove();
    if (right - left < 8 || bottom - top < 8) return;
    const [north, west] = view.place(left, top);
    const [south, east] = view.place(right, bottom);
    boxed([south, west, north, east].map((degrees) => Number(degrees.toFixed(5))));
  });
}

/** Put a map into a place, as wide as the place is. */
export function putMap(place, devices, options) {
  put(place, map(devices, { ...options, width: Math.max(280, Math.round(place.clientWidth || 420)) }));
}
