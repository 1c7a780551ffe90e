// Similarities of two frames' slots as a table; the assignment has frames around its cells.

const PALE = [240, 246, 252];
const STRONG = [8, 64, 129];

export default { render };

function render({ model, el }) {
  const root = element("div", "cavis-view cavis-matrix");
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab: the keys are the table's
  const title = element("div", "cavis-title");
  const scroll = element("div", "cavis-scroll");
  const status = element("div", "cavis-hint");
  status.setAttribute("aria-live", "polite");
  const note = element("div", "cavis-note");
  root.append(title, scroll, status, note);
  el.replaceChildren(root);
  const HINT = "Cells with a frame are matched. Click a cell to select its two slots.";
  let cells = [];
  let heads = [[], []];

  function load() {
    const [rows, columns] = model.get("_shape");
    const values = numbers(model.get("_values"), Float32Array);
    const [left, right] = model.get("_names");
    const pairs = new Set(model.get("_pairs").map((pair) => pair.join()));
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (!(high > low)) [low, high] = [Math.min(low, 0), Math.max(high, 1)];
    const table = element("table", "cavis-grid");
    table.setAttribute("role", "grid");
    table.setAttribute("aria-label", model.get("title") || "Similarity of the slots of two frames");
    const head = table.createTHead().insertRow();
    head.append(element("th", ""));
    heads = [left.map((name) => header(name, "row")), right.map((name) => header(name, "col"))];
    head.append(...heads[1]);
    const body = table.createTBody();
    cells = [];
    for (let i = 0; i < rows; i++) {
      const row = body.insertRow();
      row.append(heads[0][i]);
      for (let j = 0; j < columns; j++) {
        const value = values[i * columns + j];
        const share = (value - low) / (high - low);
        const colour = PALE.map((from, c) => Math.round(from + share * (STRONG[c] - from)));
        const cell = row.insertCell();
        cell.textContent = Math.abs(value) < 1000 ? value.toFixed(2) : value.toExponential(0);
        cell.style.background = `rgb(${colour.join(" ")})`;
        cell.style.color = share > 0.65 ? "#fff" : "#1f2328";
        cell.tabIndex = cells.length ? -1 : 0;
        cell.dataset.at = `${i},${j}`;
        const matched = pairs.has(`${i},${j}`);
        cell.classList.toggle("cavis-pair", matched);
        const words = `${left[i]} and ${right[j]}: ${Math.abs(value) < 1000 ? value.toFixed(3) : value.toExponential(2)}${matched ? ", matched" : ""}`;
        cell.setAttribute("aria-label", words);
        cell.title = words;
        cell.onclick = () => select(i, j);
        cell.onkeydown = (event) => key(event, i, j);
        cell.onpointerenter = cell.onfocus = () => (status.textContent = words);
        cell.onpointerleave = () => (status.textContent = HINT);
        cells.push(cell);
      }
    }
    scroll.replaceChildren(rows && columns ? table : element("p", "", "No slots to compare."));
    status.textContent = HINT;
    choose();
  }

  function choose() {
    const selection = new Set(model.get("selection"));
    const [left, right] = model.get("_numbers").map((side) => side.map((row) => row >= 0 && selection.has(row)));
    const some = left.includes(true) || right.includes(true);
    for (const cell of cells) {
      const [i, j] = cell.dataset.at.split(",").map(Number);
      const on = left[i] || right[j];
      cell.classList.toggle("cavis-dim", some && !on);
      cell.setAttribute("aria-selected", String(Boolean(left[i] && right[j])));
    }
    heads[0].forEach((head, i) => head.classList.toggle("cavis-dim", some && !left[i]));
    heads[1].forEach((head, j) => head.classList.toggle("cavis-dim", some && !right[j]));
  }

  function select(i, j) {
    const [left, right] = model.get("_numbers");
    model.set("selection", [...new Set([left[i], right[j]].filter((row) => row >= 0))]);
    model.save_changes();
  }

  function key(event, i, j) {
    const [rows, columns] = model.get("_shape");
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (steps[event.key]) {
      const [di, dj] = steps[event.key];
      const [y, x] = [Math.max(0, Math.min(rows - 1, i + di)), Math.max(0, Math.min(columns - 1, j + dj))];
      for (const cell of cells) cell.tabIndex = -1;
      cells[y * columns + x].tabIndex = 0;
      cells[y * columns + x].focus();
    } else if (event.key === "Enter" || event.key === " ") select(i, j);
    else if (event.key === "Escape") {
      model.set("selection", []);
      model.save_changes();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function words() {
    title.textContent = model.get("title");
    note.textContent = model.get("note");
  }

  let due = false;
  function changed() {
    // Several parts may change at once; the table is made again when all of them are there.
    if (!due) queueMicrotask(() => ((due = false), load()));
    due = true;
  }

  const listeners = [
    ...["_values", "_shape", "_pairs", "_names", "_numbers"].map((name) => [`change:${name}`, changed]),
    ["change:selection", choose],
    ["change:title", words],
    ["change:note", words],
  ];
  for (const [name, listener] of listeners) model.on(name, listener);
  words();
  load();
  return () => {
    for (const [name, listener] of listeners) model.off(name, listener);
  };
}

function header(name, scope) {
  const head = element("th", "", name);
  head.scope = scope;
  head.title = name;
  return head;
}
