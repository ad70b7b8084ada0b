// Draws the page to explore. Whatever comes from a corpus becomes text, never markup.
"use strict";
const told = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const options = { ast: true, actions: false, renderer: "svg", theme: dark ? "dark" : undefined,
  config: { background: "transparent", ...(dark && { axis: { gridColor: "#3a3b3e" } }) } };

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function signed(value) {
  return (value > 0 ? "+" : "") + value;
}

// Orange moved it up, blue down; opacity by size, relative to the example's largest token.
function coloured(pieces, values) {
  const shown = element("pre", undefined, "text");
  const most = values ? Math.max(...values.map(Math.abs), 1e-30) : 1;
  pieces.forEach((piece, place) => {
    const part = element("span", piece, "piece");
    if (values && values[place]) {
      const strength = (0.7 * Math.abs(values[place])) / most;
      part.style.background = values[place] > 0 ? `rgba(213,94,0,${strength})` : `rgba(0,114,178,${strength})`;
      part.title = signed(values[place]) + " " + told.unit;
    }
    shown.append(part);
  });
  return shown;
}

function article(name, total, step) {
  const example = told.examples[name] || { where: name, kind: "", pieces: [], seen: [] };
  const made = element("article");
  const head = element("p", example.where + " · " + example.kind + " · ", "where");
  head.append(element("b", signed(total) + " " + told.unit));
  const seen = example.seen.map(([update, value]) => `update ${update} (${signed(value)})`).join(", ");
  made.append(head, coloured(example.pieces, (told.tokens[step] || {})[name]), element("p", "Seen at " + seen, "note"));
  return made;
}

function show(step) {
  const rows = told.windows && told.windows.examples[step];
  if (!rows) return;
  document.getElementById("step").value = step;
  document.getElementById("change").textContent = "True change: " + signed(told.windows.changes[step]) + " " + told.unit;
  document.getElementById("examples").replaceChildren(...rows.map(([name, total]) => article(name, total, step)));
}

// The window that holds a step: the first that ends at it or later.
function windowOf(step) {
  return Object.keys(told.windows ? told.windows.examples : {}).find((end) => Number(end) >= step);
}

async function draw(name, description) {
  if (!description) return;
  const { view } = await vegaEmbed("#" + name, description, options);
  view.addEventListener("click", (event, item) => {
    const datum = item && item.datum && (item.datum.step !== undefined ? item.datum : item.datum.datum);
    if (datum && datum.step !== undefined) show(windowOf(Number(datum.step)));
  });
}

if (told.windows) {
  const choice = document.getElementById("step");
  const steps = Object.keys(told.windows.examples);
  choice.append(...steps.map((step) => new Option(step, step)));
  choice.addEventListener("change", () => show(choice.value));
  const size = (step) => Math.abs(told.windows.changes[step]);
  show(steps.reduce((first, second) => (size(second) > size(first) ? second : first)));
}
Promise.all([draw("training", told.training), draw("atlas", told.atlas)]).then(() => document.body.classList.add("drawn"));
