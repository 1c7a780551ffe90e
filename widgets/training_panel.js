// The view of TrainingPanel: chart and facts come ready-made; a pointer over the chart reads its numbers.

const LEFT = 46, RIGHT = 130, WIDTH = 760, TOP = 12, BOTTOM = 30, HEIGHT = 270; // as in loss_chart.py

function render({ model, el }) {
  const figure = document.createElement("div");
  figure.style.cssText = "position:relative;max-width:760px";
  const chart = document.createElement("div");
  const line = document.createElement("div");
  line.style.cssText = "position:absolute;width:1px;background:#888;pointer-events:none;display:none";
  const words = document.createElement("div");
  words.className = "tp-read";
  words.style.cssText = "min-height:1.5em;font:12px system-ui,sans-serif;font-variant-numeric:tabular-nums";
  words.setAttribute("aria-live", "polite");
  figure.append(chart, line);
  const rest = document.createElement("div");
  const pictures = document.createElement("div");
  el.append(figure, words, rest, pictures);
  figure.tabIndex = 0;
  figure.setAttribute("role", "group");
  figure.setAttribute("aria-label", "Losses; arrow keys read the numbers of a step");
  let at = null;

  function read() {
    const numbers = model.get("numbers");
    const steps = numbers.steps ?? [];
    if (at === null || !steps.length) {
      words.textContent = "";
      line.style.display = "none";
      return;
    }
    at = Math.min(steps.length - 1, Math.max(0, at));
    const names = Object.keys(numbers).filter((name) => name !== "steps" && numbers[name][at] !== null);
    words.textContent = `step ${steps[at]}: `
      + names.map((name) => `${name.replaceAll("_", " ")} ${numbers[name][at].toFixed(2)}`).join(", ");
    const scale = figure.clientWidth / WIDTH;
    const span = Math.max(1, steps[steps.length - 1] - steps[0]);
    const x = LEFT + ((steps[at] - steps[0]) / span) * (WIDTH - LEFT - RIGHT);
    line.style.cssText += `;display:block;left:${x * scale}px;top:${TOP * scale}px;`
      + `height:${(HEIGHT - TOP - BOTTOM) * scale}px`;
  }

  figure.addEventListener("mousemove", (event) => {
    const steps = model.get("numbers").steps ?? [];
    const area = figure.getBoundingClientRect();
    const share = ((event.clientX - area.left) / area.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
    at = Math.round(share * (steps.length - 1));
    read();
  });
  figure.addEventListener("mouseleave", () => { at = null; read(); });
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    at = at === null ? (model.get("numbers").steps ?? []).length - 1 : at + step;
    read();
  });

  function draw() {
    chart.innerHTML = model.get("chart");
    read();
  }
  function drawRest() {
    rest.innerHTML = model.get("rest");
  }
  function drawPictures() {
    pictures.innerHTML = model.get("pictures");
  }
  model.on("change:chart", draw);
  model.on("change:pictures", drawPictures);
  model.on("change:rest", drawRest);
  draw();
  drawRest();
  drawPictures();
}

export default { render };
