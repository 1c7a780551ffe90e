// The pointer of ContextFilterLab: hover a panel, or focus one and use the arrow keys; the cell is explained in words.

function explain(model, row, column) {
  const [height, width] = model.get("grid");
  const mask = new Uint8Array(model.get("mask").buffer, model.get("mask").byteOffset);
  const laplacian = new Int8Array(model.get("laplacian").buffer, model.get("laplacian").byteOffset);
  const at = row * width + column;
  const value = laplacian[at];
  const inside = mask[at] === 1;
  const neighbours = 8 * (inside ? 1 : 0) - value;
  const size = model.get("size");
  const sum = `Lap = 8 × ${inside ? 1 : 0} − ${neighbours} = ${value}`;
  const verdict = value > 0
    ? `greater than 0, so it is a boundary cell${size ? `, and what Avg sees in its ${size} × ${size} box (orange) is counted` : ""}.`
    : inside
      ? "not greater than 0: all its neighbours are in the mask too, so it is not counted."
      : "not greater than 0: it is outside of the mask, so it is not counted.";
  return `Row ${row + 1}, column ${column + 1}: ${inside ? "in" : "outside"} the mask, ${neighbours} of 8 neighbours in it. `
    + `${sum}, ${verdict}`;
}

function render({ model, el }) {
  const body = document.createElement("div");
  const words = document.createElement("div");
  words.className = "cfl-read";
  words.setAttribute("aria-live", "polite");
  el.append(body, words);
  let place = null;
  let shown = ""; // the mask the pointer is on: it stays where it is until the mask is another

  function pictures() {
    return [...body.querySelectorAll(".cfl-picture")].filter((one) => one.querySelector("img"));
  }

  function point() {
    const [height, width] = model.get("grid");
    if (!place || !height) return;
    const [row, column] = place;
    const half = model.get("size") / 2;
    for (const one of pictures()) {
      one.querySelector("svg.cfl-pointer")?.remove();
      const box = `<rect x="${column + 0.5 - half}" y="${row + 0.5 - half}" width="${2 * half}" height="${2 * half}"
        fill="none" stroke="#E69F00" stroke-width="2" vector-effect="non-scaling-stroke"/>`;
      const pixel = `<rect x="${column}" y="${row}" width="1" height="1" fill="none" stroke="#fff" stroke-width="2"
        vector-effect="non-scaling-stroke"/>`;
      one.insertAdjacentHTML("beforeend", `<svg class="cfl-pointer" viewBox="0 0 ${width} ${height}"
        preserveAspectRatio="none">${box}${pixel}</svg>`);
    }
    words.textContent = explain(model, row, column);
  }

  function start() {
    // The middle of the mask's boundary: a pixel worth explaining.
    const [height, width] = model.get("grid");
    const laplacian = new Int8Array(model.get("laplacian").buffer, model.get("laplacian").byteOffset);
    const edge = [...laplacian.keys()].filter((index) => laplacian[index] > 0);
    const at = edge.length ? edge[Math.floor(edge.length / 2)] : Math.floor((height * width) / 2);
    return height ? [Math.floor(at / width), at % width] : null;
  }

  function move(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!steps || !place) return;
    event.preventDefault();
    event.stopPropagation();
    const [height, width] = model.get("grid");
    place = [
      Math.min(height - 1, Math.max(0, place[0] + steps[0])),
      Math.min(width - 1, Math.max(0, place[1] + steps[1])),
    ];
    point();
  }

  function draw() {
    const focused = pictures().indexOf(document.activeElement);
    body.innerHTML = model.get("html");
    const mask = new Uint8Array(model.get("mask").buffer, model.get("mask").byteOffset).join("");
    if (mask !== shown) place = start();
    shown = mask;
    for (const one of pictures()) {
      one.tabIndex = 0;
      one.setAttribute("role", "group");
      one.setAttribute("aria-label", "Picture; arrow keys move the pointer");
      one.addEventListener("keydown", move);
      one.addEventListener("mousemove", (event) => {
        const [height, width] = model.get("grid");
        const area = one.getBoundingClientRect();
        const row = Math.floor(((event.clientY - area.top) / area.height) * height);
        const column = Math.floor(((event.clientX - area.left) / area.width) * width);
        if (row >= 0 && row < height && column >= 0 && column < width) {
          place = [row, column];
          point();
        }
      });
    }
    if (focused >= 0) pictures()[focused]?.focus();
    words.hidden = pictures().length === 0;
    point();
  }

  model.on("change:html", draw);
  draw();
}

export default { render };
