// A map of up to 100,000 points: pan, zoom, lasso, and what a point shows while the pointer rests on it.
//
// Points are painted into a buffer of pixels, by this file and not by the graphics card: 100,000 of them take a few
// milliseconds on any machine. Rows are the points' names outside: a selection is a list of rows.

const FAINT = 0.22; // how much of its colour a point keeps that is not selected
const ZOOM = 1.25;
const NEAR = 9; // how close the pointer must come to a point, in pixels
const STRIP = 12; // pictures shown of what was selected here
const KEYS =
  "Arrow keys move the map, plus and minus zoom, 0 shows all. N and P go from point to point, Space selects the point, " +
  "Enter its group (with Shift in addition), Escape selects nothing.";

export default { render };

function render({ model, el }) {
  const view = build(el);
  const data = { xy: new Float32Array(0), place: new Uint16Array(0), rows: new Int32Array(0), at: new Map() };
  const state = { scale: 1, x: 0, y: 0, chosen: null, count: 0, lasso: null, tool: "lasso", cursor: -1, moved: false, own: false };
  const crops = new Map();
  const asked = new Set(); // rows whose crops are on their way
  let pending = 0;

  // ---- data

  function move() {
    data.xy = numbers(model.get("_points"), Float32Array);
    hideCard();
    if (state.moved) ask();
    else fit();
  }

  function load() {
    data.xy = numbers(model.get("_points"), Float32Array);
    data.place = numbers(model.get("_places"), Uint16Array);
    data.rows = numbers(model.get("_rows"), Int32Array);
    data.at = new Map();
    data.rows.forEach((row, i) => data.at.set(row, i));
    crops.clear();
    view.empty.hidden = data.rows.length > 0;
    legend();
    choose();
  }

  function choose() {
    const rows = model.get("selection");
    state.chosen = new Uint8Array(data.rows.length);
    state.count = 0;
    const entries = model.get("_legend");
    const own = entries.map(() => 0);
    for (const row of rows) {
      const i = data.at.get(row);
      if (i !== undefined && !state.chosen[i]) {
        state.chosen[i] = 1;
        state.count += 1;
        own[data.place[i]] += 1;
      }
    }
    const all = data.rows.length;
    const some = rows.length ? `${grouped(state.count)} of ${grouped(all)} selected` : `${grouped(all)} points`;
    view.status.textContent = some;
    // A group's button is pressed when the selection is that group and nothing else.
    [...view.legend.children].forEach((button, place) => {
      const whole = state.count > 0 && own[place] === state.count && own[place] === entries[place]?.count;
      button.setAttribute("aria-pressed", String(whole));
    });
    if (!state.own) strip([]);
    ask();
  }

  function select(points, add) {
    const rows = points.map((i) => data.rows[i]);
    const before = add ? model.get("selection") : [];
    const all = add ? [...new Set([...before, ...rows])] : rows;
    state.own = true;
    model.set("selection", all);
    state.own = false;
    model.save_changes();
    strip(all.filter((row) => data.at.has(row)));
  }

  function legend() {
    view.legend.replaceChildren(
      ...model.get("_legend").map((entry, place) => {
        const button = element("button", "");
        button.type = "button";
        button.setAttribute("aria-pressed", "false");
        button.title = `Select ${entry.name}`;
        button.append(swatch(entry), element("span", "", entry.name), element("small", "", grouped(entry.count)));
        button.onclick = (event) => select(members(place), event.shiftKey);
        return button;
      }),
    );
  }

  function members(place) {
    const found = [];
    for (let i = 0; i < data.rows.length; i++) if (data.place[i] === place) found.push(i);
    return found;
  }

  // ---- where things are: the data's point (x, y) lies at (scale (x - state.x) + width / 2, ...), y upwards

  function size() {
    return [view.canvas.clientWidth || 300, view.canvas.clientHeight || 200];
  }

  function fit() {
    const [width, height] = size();
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < data.xy.length; i += 2) {
      left = Math.min(left, data.xy[i]);
      right = Math.max(right, data.xy[i]);
      low = Math.min(low, data.xy[i + 1]);
      high = Math.max(high, data.xy[i + 1]);
    }
    if (left === Infinity) [left, right, low, high] = [0, 0, 0, 0];
    const span = Math.max((right - left) / (width - 32), (high - low) / (height - 32));
    state.scale = span > 0 ? 1 / span : 1;
    state.x = left + (right - left) / 2;
    state.y = low + (high - low) / 2;
    state.moved = false;
    ask();
  }

  function zoom(factor, px, py) {
    const [width, height] = size();
    const [dx, dy] = [(px ?? width / 2) - width / 2, height / 2 - (py ?? height / 2)];
    state.x += dx / state.scale - dx / (state.scale * factor);
    state.y += dy / state.scale - dy / (state.scale * factor);
    state.scale *= factor;
    state.moved = true;
    ask();
  }

  function pan(dx, dy) {
    state.x -= dx / state.scale;
    state.y += dy / state.scale;
    state.moved = true;
    ask();
  }

  function screen(i) {
    const [width, height] = size();
    const { scale, x, y } = state;
    return [(data.xy[2 * i] - x) * scale + width / 2, height / 2 - (data.xy[2 * i + 1] - y) * scale];
  }

  function nearest(px, py) {
    const [width, height] = size();
    const [cx, cy] = [(px - width / 2) / state.scale + state.x, (height / 2 - py) / state.scale + state.y];
    let [best, least] = [-1, (NEAR / state.scale) ** 2];
    for (let i = 0; i < data.rows.length; i++) {
      const distance = (data.xy[2 * i] - cx) ** 2 + (data.xy[2 * i + 1] - cy) ** 2;
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }

  // ---- painting

  function ask() {
    pending ||= requestAnimationFrame(paint);
  }

  function paint() {
    pending = 0;
    const [width, height] = size();
    const ratio = Math.min(window.devicePixelRatio || 1, data.rows.length > 20000 ? 1 : 2);
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (view.canvas.width !== w || view.canvas.height !== h) [view.canvas.width, view.canvas.height] = [w, h];
    const context = view.canvas.getContext("2d", { willReadFrequently: true });
    const ink = getComputedStyle(view.root);
    context.fillStyle = ink.getPropertyValue("--cavis-paper").trim() || "#fff";
    context.fillRect(0, 0, w, h);
    const buffer = context.getImageData(0, 0, w, h);
    points(buffer, ratio);
    context.putImageData(buffer, 0, 0);
    context.scale(ratio, ratio);
    context.strokeStyle = context.fillStyle = ink.color;
    marks(context);
    context.setTransform(1, 0, 0, 1, 0, 0);
    view.root.dataset.painted = String(Number(view.root.dataset.painted || 0) + 1);
  }

  function points(buffer, ratio) {
    const { width, height } = buffer;
    const pixels = new Uint8Array(buffer.data.buffer);
    const many = data.rows.length;
    const radius = ratio * (many > 20000 ? 1.6 : many > 3000 ? 2.6 : 4.2);
    const some = state.count > 0 || model.get("selection").length > 0;
    const [sx, dx] = [state.scale * ratio, width / 2 - state.x * state.scale * ratio];
    const dy = height / 2 + state.y * state.scale * ratio;
    const paper = buffer.data.slice(0, 3);
    const stamps = model.get("_legend").map((entry) => stamp(entry, radius, paper, 1, many <= 3000));
    const shades = some ? model.get("_legend").map((entry) => stamp(entry, radius, paper, FAINT, false)) : stamps;
    for (let pass = some ? 0 : 1; pass < 2; pass++) {
      const set = pass ? stamps : shades;
      for (let i = 0; i < many; i++) {
        if (some && state.chosen[i] !== pass) continue;
        const x = Math.round(data.xy[2 * i] * sx + dx);
        const y = Math.round(dy - data.xy[2 * i + 1] * sx);
        if (x > -20 && y > -20 && x < width + 20 && y < height + 20) {
          put(set[data.place[i]], x, y, pixels, width, height);
        }
      }
    }
  }

  function marks(context) {
    if (state.cursor >= 0 && state.cursor < data.rows.length) {
      const [x, y] = screen(state.cursor);
      context.lineWidth = 2;
      context.beginPath();
      context.arc(x, y, 9, 0, 2 * Math.PI);
      context.stroke();
    }
    if (state.lasso) {
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      trace(context, state.lasso);
      context.stroke();
      context.globalAlpha = 0.08;
      context.fill();
      context.globalAlpha = 1;
      context.setLineDash([]);
    }
  }

  // ---- lasso

  function inside(path) {
    // The outline is filled on a canvas of its own: a point is inside where that canvas is filled.
    const [width, height] = size().map(Math.ceil);
    const sheet = document.createElement("canvas");
    [sheet.width, sheet.height] = [width, height];
    const context = sheet.getContext("2d", { willReadFrequently: true });
    trace(context, path);
    context.fill("evenodd");
    const filled = context.getImageData(0, 0, width, height).data;
    const found = [];
    for (let i = 0; i < data.rows.length; i++) {
      const x = Math.round((data.xy[2 * i] - state.x) * state.scale + width / 2);
      const y = Math.round(height / 2 - (data.xy[2 * i + 1] - state.y) * state.scale);
      if (x >= 0 && y >= 0 && x < width && y < height && filled[4 * (y * width + x) + 3] > 127) found.push(i);
    }
    return found;
  }

  // ---- pointer and keys

  let last = null;
  view.canvas.onpointerdown = (event) => {
    if (event.button > 1) return;
    view.canvas.focus({ preventScroll: true });
    view.canvas.setPointerCapture(event.pointerId);
    const place = at(event);
    const panning = state.tool === "pan" || event.button === 1;
    last = { place, start: place, panning };
    if (!panning) state.lasso = [place];
    hideCard();
  };
  view.canvas.onpointermove = (event) => {
    const place = at(event);
    if (!last) return hover(place);
    if (last.panning) {
      pan(place[0] - last.place[0], place[1] - last.place[1]);
      last.place = place;
    } else if (distance(place, state.lasso.at(-1)) > 3) {
      state.lasso.push(place);
      ask();
    }
  };
  view.canvas.onpointerup = (event) => {
    if (!last) return;
    const { start, panning } = last;
    const path = state.lasso;
    last = state.lasso = null;
    if (panning && distance(start, at(event)) > 3) return;
    if (!panning && path.length > 2) select(inside(path), event.shiftKey);
    else pick(start, event.shiftKey);
    ask();
  };
  view.canvas.onpointercancel = () => {
    last = state.lasso = null;
    ask();
  };
  view.canvas.onpointerleave = () => last || hideCard();
  view.canvas.addEventListener(
    "wheel",
    (event) => {
      // The page keeps its wheel until the map is the thing that is worked on.
      if (document.activeElement !== view.canvas && !deepFocus(view.canvas) && !event.ctrlKey) return;
      event.preventDefault();
      zoom(Math.exp(-Math.max(-240, Math.min(240, event.deltaY)) / 400), ...at(event));
    },
    { passive: false },
  );
  view.canvas.ondblclick = () => fit();

  function pick(place, add) {
    const i = nearest(...place);
    state.cursor = i;
    if (i >= 0) select([i], add);
    else if (!add) select([], false);
  }

  const steps = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
  view.canvas.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      "+": () => zoom(ZOOM),
      "=": () => zoom(ZOOM),
      "-": () => zoom(1 / ZOOM),
      0: fit,
      n: () => step(1),
      p: () => step(-1),
      " ": () => state.cursor >= 0 && select([state.cursor], event.shiftKey),
      Enter: () => state.cursor >= 0 && select(members(data.place[state.cursor]), event.shiftKey),
      Escape: () => ((state.cursor = -1), hideCard(), select([], false)),
    };
    const action = steps[event.key] ? () => pan(...steps[event.key]) : actions[event.key] ?? actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation(); // the notebook has its own use of these keys
    action();
  };

  function step(by) {
    if (!data.rows.length) return;
    const from = state.cursor < 0 && by < 0 ? 0 : state.cursor;
    state.cursor = (from + by + data.rows.length) % data.rows.length;
    const entry = model.get("_legend")[data.place[state.cursor]];
    view.live.textContent = `Point ${state.cursor + 1} of ${data.rows.length}: ${entry.name}`;
    show(state.cursor);
    ask();
  }

  function at(event) {
    const box = view.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // ---- the card: what a point shows

  let resting = 0;
  let shown = -1;
  function hover(place) {
    const i = nearest(...place);
    clearTimeout(resting);
    if (i === shown) return;
    hideCard();
    if (i >= 0) resting = setTimeout(() => show(i), 60);
  }

  function show(i) {
    shown = i;
    const row = data.rows[i];
    want(row);
    card();
  }

  function want(row) {
    if (!model.get("_has_crops") || crops.has(row) || asked.has(row)) return;
    asked.add(row);
    model.send({ kind: "crop", row });
  }

  // Some of the rows that were selected in this map, spread evenly; what is selected elsewhere is shown there.
  function strip(rows) {
    const count = model.get("_has_crops") ? Math.min(STRIP, rows.length) : 0;
    const some = Array.from({ length: count }, (_, k) => rows[Math.floor((k * rows.length) / count)]);
    view.strip.replaceChildren(
      ...some.map((row) => {
        const cell = element("figure", "");
        cell.dataset.row = row;
        want(row);
        fill(cell);
        return cell;
      }),
    );
    if (count && count < rows.length) {
      view.strip.append(element("div", "cavis-hint", `${count} of ${grouped(rows.length)}`));
    }
  }

  function fill(cell) {
    const crop = crops.get(Number(cell.dataset.row));
    if (!crop) return;
    // A picture can be in one place only: the card and the strip each have their own.
    cell.replaceChildren(...[crop.picture && copied(crop.picture), element("figcaption", "", crop.text)].filter(Boolean));
  }

  function card() {
    if (shown < 0) return;
    const [x, y] = screen(shown);
    const [width, height] = size();
    const entry = model.get("_legend")[data.place[shown]];
    const crop = crops.get(data.rows[shown]);
    view.card.replaceChildren(...[crop?.picture, element("div", "", crop?.text || entry.name)].filter(Boolean));
    view.card.style.display = "block";
    const [w, h] = [view.card.offsetWidth, view.card.offsetHeight];
    view.card.style.left = `${Math.max(2, x + 14 + w > width ? x - 14 - w : x + 14)}px`;
    view.card.style.top = `${Math.max(2, Math.min(y - h / 2, height - h - 2))}px`;
  }

  function hideCard() {
    clearTimeout(resting);
    shown = -1;
    view.card.style.display = "none";
  }

  function receive(message, buffers) {
    if (message.kind !== "crop") return;
    asked.delete(message.row);
    const crop = { text: message.error ? `No picture: ${message.error}` : message.text };
    if (buffers?.length) crop.picture = drawn(buffers[0], message.width, message.height);
    if (crops.size > 500) crops.clear();
    crops.set(message.row, crop);
    if (shown >= 0 && data.rows[shown] === message.row) card();
    view.strip.querySelectorAll(`figure[data-row="${message.row}"]`).forEach(fill);
  }

  // ---- wiring

  function use(tool) {
    state.tool = tool;
    view.canvas.classList.toggle("cavis-pan", tool === "pan");
    view.tools.lasso.setAttribute("aria-pressed", String(tool === "lasso"));
    view.tools.pan.setAttribute("aria-pressed", String(tool === "pan"));
  }

  function words() {
    view.title.textContent = model.get("title");
    view.note.textContent = [model.get("note"), model.get("_alike")].filter(Boolean).join(" ");
    view.canvas.setAttribute("aria-label", `${model.get("title") || "Map of points"}. ${KEYS}`);
    view.canvas.style.height = `${model.get("height")}px`;
  }

  const actions = { in: () => zoom(ZOOM), out: () => zoom(1 / ZOOM), fit, clear: () => select([], false) };
  for (const [name, button] of Object.entries(view.tools)) button.onclick = actions[name] ?? (() => use(name));
  const listeners = [
    ["change:selection", choose],
    ["change:_points", move],
    ["change:_places", load],
    ["change:_legend", load],
    ["change:title", words],
    ["change:note", words],
    ["change:height", words],
    ["msg:custom", receive],
  ];
  for (const [name, listener] of listeners) model.on(name, listener);
  const resized = new ResizeObserver(() => (state.moved ? ask() : fit()));
  const themed = new MutationObserver(ask);
  themed.observe(document.body, { attributes: true });
  words();
  use("lasso");
  load();
  fit();
  resized.observe(view.canvas);
  return () => {
    for (const [name, listener] of listeners) model.off(name, listener);
    resized.disconnect();
    themed.disconnect();
    cancelAnimationFrame(pending);
    clearTimeout(resting);
  };
}

function build(el) {
  const root = element("div", "cavis-view cavis-map");
  const view = { root, tools: {} };
  const bar = element("div", "cavis-bar");
  bar.setAttribute("role", "toolbar");
  const names = {
    lasso: ["Lasso", "Draw around points to select them (Shift adds)"],
    pan: ["Move", "Drag the map"],
    in: ["+", "Zoom in"],
    out: ["−", "Zoom out"],
    fit: ["Fit", "Show all points"],
    clear: ["Clear", "Select nothing"],
  };
  for (const [name, [text, title]] of Object.entries(names)) {
    const button = (view.tools[name] = element("button", "", text));
    button.type = "button";
    button.title = title;
    button.setAttribute("aria-label", title);
    bar.append(button);
  }
  view.title = element("div", "cavis-title");
  view.status = element("span", "cavis-status");
  view.status.setAttribute("aria-live", "polite");
  bar.append(view.status);
  const stage = element("div", "cavis-stage");
  view.canvas = element("canvas", "cavis-plot");
  view.canvas.tabIndex = 0;
  view.canvas.setAttribute("role", "application");
  view.canvas.dataset.lmSuppressShortcuts = "true"; // JupyterLab: the keys are the map's
  view.card = element("div", "cavis-card");
  view.empty = element("div", "cavis-empty", "No points.");
  stage.append(view.canvas, view.card, view.empty);
  view.legend = element("div", "cavis-legend");
  view.hint = element("div", "cavis-hint", "Draw around points to select them. Click the map, then turn the wheel to zoom.");
  view.strip = element("div", "cavis-strip");
  view.strip.setAttribute("role", "group");
  view.strip.setAttribute("aria-label", "Some of what is selected");
  view.note = element("div", "cavis-note");
  view.live = element("div", "cavis-unseen");
  view.live.setAttribute("aria-live", "polite");
  root.append(view.title, bar, stage, view.legend, view.hint, view.strip, view.note, view.live);
  el.replaceChildren(root);
  return view;
}

function outline(context, shape, x, y, radius) {
  const corners = {
    square: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
    triangle: [[0, -1.15], [1.1, 0.85], [-1.1, 0.85]],
    diamond: [[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]],
  }[shape];
  context.beginPath();
  if (corners) corners.forEach(([dx, dy]) => context.lineTo(x + dx * radius, y + dy * radius));
  else context.arc(x, y, radius, 0, 2 * Math.PI);
  context.closePath();
}

function swatch(entry) {
  const canvas = element("canvas", "");
  [canvas.width, canvas.height] = [28, 28];
  canvas.style.cssText = "width:14px;height:14px";
  const context = canvas.getContext("2d");
  outline(context, entry.shape, 14, 14, 10);
  context.fillStyle = entry.colour;
  context.fill();
  context.lineWidth = 2;
  context.strokeStyle = "rgb(0 0 0 / 45%)";
  context.stroke();
  return canvas;
}

const stamps = new Map();

// The pixels of one point: red, green, blue, opacity. Faint ones are pale, not transparent: a thousand transparent
// points on one place would be as strong as one that is selected.
function stamp(entry, radius, paper, strength, edged) {
  const key = [entry.colour, entry.shape, radius, paper, strength, edged].join();
  if (stamps.has(key)) return stamps.get(key);
  const half = Math.ceil(radius * 1.3) + 1;
  const side = 2 * half + 1;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.globalAlpha = 0.92;
  outline(context, entry.shape, half + 0.5, half + 0.5, radius);
  context.fillStyle = entry.colour;
  context.fill();
  if (edged) {
    context.lineWidth = Math.max(1, radius / 5);
    context.strokeStyle = "rgb(0 0 0 / 50%)";
    context.stroke();
  }
  const rgba = context.getImageData(0, 0, side, side).data;
  const mixed = (p, c) => Math.round(strength * rgba[4 * p + c] + (1 - strength) * paper[c]);
  const made = { half, dx: [], dy: [], red: [], green: [], blue: [], alpha: [] };
  for (let p = 0; p < side * side; p++) {
    if (rgba[4 * p + 3] < 6) continue;
    made.dx.push((p % side) - half);
    made.dy.push(Math.floor(p / side) - half);
    made.red.push(mixed(p, 0));
    made.green.push(mixed(p, 1));
    made.blue.push(mixed(p, 2));
    made.alpha.push(Math.round((rgba[4 * p + 3] * 256) / 255));
  }
  for (const name of ["dx", "dy"]) made[name] = Int16Array.from(made[name]);
  for (const name of ["red", "green", "blue", "alpha"]) made[name] = Uint16Array.from(made[name]);
  if (stamps.size > 400) stamps.clear();
  stamps.set(key, made);
  return made;
}

function put(mark, x, y, pixels, width, height) {
  const { half, dx, dy, red, green, blue, alpha } = mark;
  const clipped = x < half || y < half || x >= width - half || y >= height - half;
  for (let p = 0; p < dx.length; p++) {
    const px = x + dx[p];
    const py = y + dy[p];
    if (clipped && (px < 0 || py < 0 || px >= width || py >= height)) continue;
    const place = 4 * (py * width + px);
    const a = alpha[p];
    pixels[place] += ((red[p] - pixels[place]) * a) >> 8;
    pixels[place + 1] += ((green[p] - pixels[place + 1]) * a) >> 8;
    pixels[place + 2] += ((blue[p] - pixels[place + 2]) * a) >> 8;
  }
}

function drawn(bytes, width, height) {
  const canvas = element("canvas", "");
  [canvas.width, canvas.height] = [width, height];
  const enlarged = Math.max(1, Math.min(3, 96 / Math.max(width, height)));
  canvas.style.width = `${width * enlarged}px`;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const rgb = new Uint8Array(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, 3 * width * height);
  for (let p = 0; p < width * height; p++) {
    picture.data.set([rgb[3 * p], rgb[3 * p + 1], rgb[3 * p + 2], 255], 4 * p);
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

function copied(picture) {
  const canvas = picture.cloneNode();
  canvas.getContext("2d").drawImage(picture, 0, 0);
  return canvas;
}

function trace(context, path) {
  context.beginPath();
  for (const [x, y] of path) context.lineTo(x, y);
  context.closePath();
}

function distance([x, y], [u, v]) {
  return Math.hypot(x - u, y - v);
}

function deepFocus(node) {
  return node.getRootNode().activeElement === node; // inside of a shadow root
}

function grouped(number) {
  return number.toLocaleString("en");
}
