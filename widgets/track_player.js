// A clip with its tracks. Frames come from the kernel one at a time, with a map that says which track each pixel shows;
// colours are laid on here, so that choosing a track asks the kernel nothing.

const AHEAD = 3; // frames asked for before they are needed
const KEPT = 240; // frames kept here
const KEYS =
  "Left and right go a frame back and on, Home and End to the first and last, Space plays, " +
  "0 to 9 choose the track of that number, Escape chooses none.";

export default { render };

function render({ model, el }) {
  const view = build(el);
  const frames = new Map();
  const asked = new Set();
  const failed = new Map(); // why a frame has no picture
  let tracks = [];
  let visible = new Uint8Array(0);
  let rows = new Int32Array(0);
  let chosen = new Set(); // tracks, by their places
  let seen = new Set(); // frames of selected rows
  let timer = 0;
  let own = false; // whether the selection was made here

  const length = () => Math.max(1, model.get("length"));
  const now = () => model.get("frame");

  function load() {
    tracks = model.get("_tracks");
    visible = numbers(model.get("_visible"), Uint8Array);
    rows = numbers(model.get("_rows"), Int32Array);
    frames.clear();
    asked.clear();
    failed.clear();
    view.slider.max = length() - 1;
    lanes();
    choose();
    draw();
  }

  // ---- selection: rows outside, tracks here

  function choose() {
    const selection = new Set(model.get("selection"));
    chosen = new Set();
    seen = new Set();
    for (let n = 0; n < tracks.length; n++) {
      for (let t = 0; t < length(); t++) {
        const row = rows[n * length() + t];
        if (row >= 0 && selection.has(row)) {
          chosen.add(n);
          seen.add(`${n}:${t}`);
        }
      }
    }
    const times = [...seen].map((key) => Number(key.split(":")[1]));
    if (!own && times.length && !times.includes(now())) seek(times.reduce((first, t) => Math.min(first, t)));
    view.lanes.querySelectorAll("button").forEach((button, n) => {
      button.setAttribute("aria-pressed", String(chosen.has(n)));
    });
    const some = tracks.length ? `${tracks.length} ${tracks.length === 1 ? "track" : "tracks"}` : "no tracks";
    view.status.textContent = chosen.size ? `${chosen.size} of ${some} selected` : some;
    paintLanes();
    draw();
  }

  function select(track) {
    const all = [];
    if (track !== null) {
      for (let t = 0; t < length(); t++) {
        const row = rows[track * length() + t];
        if (row >= 0) all.push(row);
      }
    }
    own = true;
    model.set("selection", all);
    own = false;
    model.save_changes();
  }

  function toggle(track) {
    select(chosen.size === 1 && chosen.has(track) ? null : track);
  }

  // ---- time

  function seek(t) {
    const next = Math.max(0, Math.min(length() - 1, t));
    if (next === now()) return;
    model.set("frame", next);
    model.save_changes();
  }

  function play(on) {
    clearInterval(timer);
    timer = 0;
    if (on) {
      if (now() === length() - 1) seek(0);
      timer = setInterval(() => {
        if (now() === length() - 1) play(false);
        else if (frames.has(now()) || failed.has(now())) seek(now() + 1); // wait for what has not come yet
      }, 1000 / Math.max(1, model.get("fps")));
    }
    view.play.textContent = timer ? "Pause" : "Play";
    view.play.setAttribute("aria-pressed", String(Boolean(timer)));
  }

  function moved() {
    for (const t of failed.keys()) if (t !== now()) failed.delete(t); // asked for again when it is shown again
    view.slider.value = now();
    view.time.textContent = `frame ${now()} / ${length() - 1}`;
    view.slider.setAttribute("aria-valuetext", view.time.textContent);
    draw();
    paintLanes();
  }

  // ---- frames

  function want(t) {
    if (t >= length() || frames.has(t) || asked.has(t) || failed.has(t)) return;
    asked.add(t);
    model.send({ kind: "frame", t });
  }

  function receive(message, buffers) {
    if (message.kind !== "frame") return;
    asked.delete(message.t);
    if (message.error && message.t === now()) {
      failed.set(message.t, message.error);
    } else if (!message.error) {
      if (frames.size >= KEPT) frames.delete(frames.keys().next().value);
      frames.set(message.t, { rgb: numbers(buffers[0], Uint8Array), labels: numbers(buffers[1], Uint8Array) });
    }
    if (message.t === now()) draw();
  }

  function draw() {
    for (let t = now(); t <= now() + AHEAD; t++) want(t);
    const frame = frames.get(now());
    const [height, width] = model.get("_size");
    if (view.canvas.width !== width || view.canvas.height !== height) {
      [view.canvas.width, view.canvas.height] = [width, height];
    }
    const context = view.canvas.getContext("2d");
    if (failed.has(now())) context.clearRect(0, 0, width, height);
    view.empty.textContent = failed.has(now()) ? `No picture: ${failed.get(now())}` : "Waiting for the kernel";
    view.empty.hidden = !failed.has(now()) && frames.size > 0; // what has not come yet leaves the one before
    if (!frame) return;
    const picture = context.createImageData(width, height);
    const { rgb, labels } = frame;
    const colours = tracks.map((track) => [1, 3, 5].map((at) => parseInt(track.colour.slice(at, at + 2), 16)));
    for (let p = 0; p < width * height; p++) {
      const label = labels[p];
      const other =
        label && (labels[p - 1] !== label || labels[p + 1] !== label || labels[p - width] !== label || labels[p + width] !== label);
      const bright = !chosen.size || chosen.has(label - 1);
      const opacity = !label ? 0 : other ? (bright ? 1 : 0.35) : bright ? 0.45 : 0.08;
      for (let c = 0; c < 3; c++) {
        const value = rgb[3 * p + c];
        picture.data[4 * p + c] = opacity ? value + opacity * (colours[label - 1][c] - value) : value;
      }
      picture.data[4 * p + 3] = 255;
    }
    context.putImageData(picture, 0, 0);
    inscribe(context, labels, width, height);
    view.root.dataset.shown = String(now());
  }

  // Each track's number on the pixel of it that is nearest to the middle of all of them: colours come again.
  function inscribe(context, labels, width, height) {
    const sums = tracks.map(() => ({ count: 0, x: 0, y: 0, least: Infinity, at: 0 }));
    for (let p = 0; p < width * height; p++) {
      if (!labels[p]) continue;
      const sum = sums[labels[p] - 1];
      sum.count += 1;
      sum.x += p % width;
      sum.y += Math.floor(p / width);
    }
    for (let p = 0; p < width * height; p++) {
      if (!labels[p]) continue;
      const sum = sums[labels[p] - 1];
      const distance = ((p % width) - sum.x / sum.count) ** 2 + (Math.floor(p / width) - sum.y / sum.count) ** 2;
      if (distance < sum.least) [sum.least, sum.at] = [distance, p];
    }
    const size = Math.max(9, Math.round(width / 36));
    context.font = `600 ${size}px system-ui, sans-serif`;
    [context.textAlign, context.textBaseline, context.lineWidth] = ["center", "middle", size / 4];
    [context.strokeStyle, context.fillStyle] = ["rgb(0 0 0 / 75%)", "#fff"];
    sums.forEach(({ count, at }, n) => {
      if (!count || (chosen.size && !chosen.has(n))) return;
      const place = [(at % width) + 0.5, Math.floor(at / width) + 0.5];
      context.strokeText(tracks[n].number, ...place);
      context.fillText(tracks[n].number, ...place);
    });
  }

  // ---- the timeline

  function lanes() {
    view.lanes.replaceChildren();
    tracks.forEach((track, n) => {
      const button = element("button", "");
      button.type = "button";
      button.title = `Select ${track.number}, ${track.name}`;
      button.append(swatch(track), element("small", "", String(track.number)), element("span", "", track.name));
      button.onclick = () => {
        toggle(n);
        const first = visible.subarray(n * length(), (n + 1) * length()).indexOf(1);
        if (first >= 0 && !visible[n * length() + now()]) seek(first);
      };
      const lane = element("canvas", "cavis-lane");
      lane.setAttribute("role", "img");
      lane.setAttribute("aria-label", `${track.number}, ${track.name}, is visible in ${described(n)}`);
      lane.onpointerdown = (event) => {
        select(n); // also a second time: whoever goes through a lane keeps its track
        const box = lane.getBoundingClientRect();
        seek(Math.floor(((event.clientX - box.left) / box.width) * length()));
      };
      view.lanes.append(button, lane);
    });
  }

  function described(n) {
    const own = visible.subarray(n * length(), (n + 1) * length());
    const count = own.reduce((sum, one) => sum + one, 0);
    return `${count} of ${length()} frames`;
  }

  function paintLanes() {
    const ratio = window.devicePixelRatio || 1;
    const ink = getComputedStyle(view.root).color;
    view.lanes.querySelectorAll("canvas.cavis-lane").forEach((lane, n) => {
      const [width, height] = [Math.round(lane.clientWidth * ratio) || 1, Math.round(16 * ratio)];
      [lane.width, lane.height] = [width, height];
      const context = lane.getContext("2d");
      const step = width / length();
      context.globalAlpha = 0.12;
      context.fillStyle = ink;
      context.fillRect(0, height / 2 - ratio / 2, width, ratio);
      for (let t = 0; t < length(); t++) {
        if (!visible[n * length() + t]) continue;
        const strong = !chosen.size || chosen.has(n);
        context.globalAlpha = strong ? 0.9 : 0.25;
        context.fillStyle = tracks[n].colour;
        const [left, right] = [Math.round(t * step), Math.round((t + 1) * step)];
        context.fillRect(left, 0.15 * height, right - left, 0.7 * height);
        if (seen.has(`${n}:${t}`)) {
          context.globalAlpha = 1;
          context.fillStyle = ink;
          context.fillRect(left, height - 2 * ratio, right - left, 2 * ratio);
        }
      }
      context.globalAlpha = 1;
      context.fillStyle = ink;
      context.fillRect((now() + 0.5) * step - ratio, 0, 2 * ratio, height);
    });
  }

  // ---- pointer and keys

  view.canvas.onpointerdown = (event) => {
    const frame = frames.get(now());
    if (!frame) return;
    const box = view.canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * view.canvas.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * view.canvas.height);
    const label = frame.labels[y * view.canvas.width + x];
    if (label) toggle(label - 1);
    else select(null);
  };
  view.root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = event.target.tagName === "BUTTON";
    const actions = {
      ArrowLeft: () => seek(now() - 1),
      ArrowRight: () => seek(now() + 1),
      Home: () => seek(0),
      End: () => seek(length() - 1),
      Escape: () => select(null),
    };
    if (!onButton) actions[" "] = () => play(!timer);
    tracks.forEach(({ number }, n) => {
      if (number >= 0 && number <= 9) actions[number] = () => toggle(n);
    });
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation(); // the notebook has its own use of these keys
    action();
  });

  // ---- wiring

  function words() {
    view.title.textContent = model.get("title");
    view.note.textContent = model.get("note");
    view.canvas.setAttribute("aria-label", `${model.get("title") || "Player"}. ${KEYS}`);
  }

  view.play.onclick = () => play(!timer);
  view.back.onclick = () => seek(now() - 1);
  view.on.onclick = () => seek(now() + 1);
  view.slider.oninput = () => seek(Number(view.slider.value));
  const listeners = [
    ["change:selection", choose],
    ["change:frame", moved],
    ["change:_tracks", load],
    ["change:title", words],
    ["change:note", words],
    ["msg:custom", receive],
  ];
  for (const [name, listener] of listeners) model.on(name, listener);
  const resized = new ResizeObserver(paintLanes);
  const themed = new MutationObserver(paintLanes);
  themed.observe(document.body, { attributes: true });
  words();
  load();
  moved();
  resized.observe(view.lanes);
  return () => {
    for (const [name, listener] of listeners) model.off(name, listener);
    play(false);
    resized.disconnect();
    themed.disconnect();
  };
}

function build(el) {
  const root = element("div", "cavis-view cavis-player");
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab: the keys are the player's
  const view = { root };
  view.title = element("div", "cavis-title");
  const stage = element("div", "cavis-stage");
  view.canvas = element("canvas", "");
  view.canvas.tabIndex = 0;
  view.canvas.setAttribute("role", "application");
  view.empty = element("div", "cavis-empty", "Waiting for the kernel");
  view.empty.setAttribute("aria-live", "polite");
  stage.append(view.canvas, view.empty);
  const bar = element("div", "cavis-bar");
  const button = (name, text, title) => {
    view[name] = element("button", "", text);
    view[name].type = "button";
    view[name].title = title;
    view[name].setAttribute("aria-label", title);
    return view[name];
  };
  view.slider = element("input", "");
  Object.assign(view.slider, { type: "range", min: 0, step: 1, value: 0 });
  view.slider.setAttribute("aria-label", "Frame");
  view.time = element("span", "cavis-status");
  bar.append(button("play", "Play", "Play or pause"), button("back", "‹", "One frame back"), view.slider);
  bar.append(button("on", "›", "One frame on"), view.time);
  view.lanes = element("div", "cavis-lanes");
  view.status = element("div", "cavis-hint");
  view.status.setAttribute("aria-live", "polite");
  view.note = element("div", "cavis-note");
  root.append(view.title, stage, bar, view.lanes, view.status, view.note);
  el.replaceChildren(root);
  return view;
}

function swatch(mark) {
  const corners = {
    square: "-6,-6 6,-6 6,6 -6,6",
    triangle: "0,-7 7,6 -7,6",
    diamond: "0,-8 8,0 0,8 -8,0",
  }[mark.shape];
  const inner = corners ? `<polygon points="${corners}"/>` : '<circle r="6.5"/>';
  const span = element("span", "");
  span.innerHTML =
    `<svg width="14" height="14" viewBox="-9 -9 18 18" aria-hidden="true" fill="${mark.colour}" ` +
    `stroke="currentColor" stroke-opacity="0.45">${inner}</svg>`;
  span.style.display = "inline-flex";
  return span;
}
