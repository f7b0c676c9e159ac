// Sorting and filtering by DataTables, curves by Vega-Lite. Every number was computed when the file was written.
const $ = (selector, inside = document) => inside.querySelector(selector);
const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const root = document.documentElement;
// Decompresses a library, which the page stores as base64 of gzip, and returns its URL.
async function source(id) {
  const packed = Uint8Array.from(atob($(`#${id}`).textContent), (letter) => letter.charCodeAt(0));
  const code = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return URL.createObjectURL(new Blob([await new Response(code).arrayBuffer()], { type: "text/javascript" }));
}

// Light and dark: the system's choice, until the button is pressed.
const dark = () =>
  root.classList.contains("dark") || (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
$("#theme").hidden = false;
$("#theme").addEventListener("click", () => {
  const next = dark() ? "light" : "dark";
  root.classList.remove("light", "dark");
  root.classList.add(next);
  redraw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());

// A link to a section opens it.
function open() {
  let target = null;
  try {
    target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  } catch {
    return; // a fragment that no encoding has
  }
  if (!target) return;
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", open);

for (const button of $$("button.copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
}

// Leaderboard. Numbers sort by their unrounded value, and cells without one come last in both directions.
async function leaderboard() {
  const { default: DataTable } = await import(await source("datatables"));
  const number = (text) => (text === "" ? NaN : text === "inf" ? Infinity : Number(text));
  const compare = (sign) => (one, other) => {
    const [a, b] = [number(one), number(other)];
    return Number.isNaN(a) ? (Number.isNaN(b) ? 0 : 1) : Number.isNaN(b) ? -1 : a === b ? 0 : a < b ? -sign : sign;
  };
  DataTable.ext.type.order["measure-asc"] = compare(1);
  DataTable.ext.type.order["measure-desc"] = compare(-1);
  const element = $("#leaderboard-table");
  const ranked = Number(element.dataset.ranked);
  const last = $$("thead th", element).length - 1;
  const table = new DataTable(element, {
    paging: element.tBodies[0].rows.length > 100,
    pageLength: 50,
    autoWidth: false,
    order: ranked < 0 ? [] : [[ranked + 3, "asc"]],
    layout: { topStart: null, topEnd: "search", bottomStart: "info", bottomEnd: "paging" },
    language: { search: "Search", info: "_TOTAL_ series", infoFiltered: "of _MAX_", infoEmpty: "no series" },
    columnDefs: [
      { targets: Array.from({ length: last - 3 }, (_, place) => place + 3), type: "measure", searchable: false },
      { targets: [last], orderable: false, searchable: false },
    ],
  });
  const filter = (id, column, part) => {
    const select = $(id);
    const apply = () => {
      const wanted = select.value.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
      table.column(column).search(wanted && `^${wanted}${part}$`, true, false).draw();
    };
    if (select.dataset.first) select.value = select.dataset.first;
    select.addEventListener("change", apply);
    apply();
  };
  $("#filters").hidden = false;
  filter("#filter-kind", 1, "");
  filter("#filter-experiment", 2, "( \\(.*\\))?");
}

// Curves, drawn when they come into view.
const drawn = new Map();
let library = null;
const { texts, points, charts } = JSON.parse($("#chart-data").textContent);

// Colours of series that are too dark for a dark page.
const LIGHTER = { "#000000": "#ffffff", "#332288": "#9a8cff", "#882255": "#e07aa8", "#0072B2": "#4a7dff", "#999933": "#c9c95a" };
const seriesColour = (colour) => (dark() && LIGHTER[colour]) || colour;

function theme() {
  const style = getComputedStyle(document.body);
  const ink = style.color;
  const text = { labelColor: ink, titleColor: ink };
  return {
    background: "transparent",
    font: "system-ui, sans-serif",
    axis: { ...text, gridColor: dark() ? "#3a3f47" : "#dddddd", domainColor: ink, tickColor: ink },
    header: { ...text, labelFontWeight: "bold" },
    legend: text,
    rule: { color: ink },
    view: { stroke: null },
  };
}

function values({ columns, texts: written, rows }) {
  const isText = columns.map((name) => written.includes(name));
  return rows.map((row) => {
    const point = {};
    columns.forEach((name, place) => row[place] !== null && (point[name] = isText[place] ? texts[row[place]] : row[place]));
    return point;
  });
}

const chosen = (figure) => $$(".legend input:checked", figure).map((box) => box.value);

function resized(spec, width) {
  // Facets have a fixed width: as many side by side as fit.
  return spec.facet ? { ...spec, columns: Math.max(1, Math.floor(width / 290)) } : spec;
}

async function draw(figure) {
  const chart = charts[figure.dataset.chart];
  const data = values(points[chart.data]);
  const plot = $(".plot", figure);
  plot.hidden = false;
  $(".legend", figure).hidden = false;
  library ??= source("vega").then((url) => import(url));
  await library;
  const names = chart.series.map((one) => one.name);
  const colours = chart.series.map((one) => seriesColour(one.colour));
  $$(".legend i", figure).forEach((dot, place) => dot.style.setProperty("--colour", colours[place]));
  const scale = JSON.stringify({ domain: names, range: colours });
  const text = JSON.stringify(resized(chart.spec, plot.clientWidth)).replaceAll(
    '"field":"series","type":"nominal","legend":null',
    `"field":"series","type":"nominal","legend":null,"scale":${scale}`,
  );
  const spec = { ...JSON.parse(text), data: { values: data } };
  spec.params = spec.params.map((one) => (one.name === "shown" ? { ...one, value: chosen(figure) } : one));
  drawn.get(figure)?.finalize();
  const made = await vegaEmbed(plot, spec, { actions: false, renderer: "svg", config: theme(), logLevel: 1 });
  drawn.set(figure, made);
  if (!figure.dataset.ready) connect(figure, data);
  figure.dataset.ready = "true";
}

function connect(figure, data) {
  const send = (name, value) => drawn.get(figure).view.signal(name, value).runAsync();
  const boxes = $$(".legend input", figure);
  const show = () => send("shown", chosen(figure));
  for (const box of boxes) {
    box.addEventListener("change", show);
    // The series under the mouse or the keyboard stands out.
    for (const [event, name] of [["mouseenter", box.value], ["mouseleave", ""]]) {
      box.parentElement.addEventListener(event, () => send("focus", { series: name, where: "" }));
    }
  }
  for (const button of $$("[data-all]", figure)) {
    button.addEventListener("click", () => {
      for (const box of boxes) box.checked = Boolean(button.dataset.all);
      show();
    });
  }
  const readout = $(".readout", figure);
  const plot = $(".plot", figure);
  let at = null;
  const focus = (point) => {
    at = point;
    send("focus", point ? { series: point.series, where: point.where } : { series: "", where: "" });
    readout.textContent = point ? `${point.series}, ${point.where}: ${point.value}` : "";
  };
  plot.addEventListener("keydown", (event) => {
    const names = chosen(figure);
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key === "Escape") return focus(null);
    if (!(event.key in steps) || !names.length) return;
    event.preventDefault();
    if (!at || !names.includes(at.series)) return focus(data.find((point) => point.series === names[0]));
    const [down, right] = steps[event.key];
    const name = names[(names.indexOf(at.series) + down + names.length) % names.length];
    const line = data.filter((point) => point.series === name);
    if (!line.length) return;
    const same = line.findIndex((point) => point.where === at.where);
    const place = (same < 0 ? 0 : same) + right;
    focus(line[Math.min(Math.max(place, 0), line.length - 1)]);
  });
  plot.addEventListener("blur", () => at && focus(null));
}

const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  },
  { rootMargin: "300px" },
);
for (const figure of $$("figure.chart")) watcher.observe(figure);
function redraw() {
  for (const figure of drawn.keys()) draw(figure);
}
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) redraw(); // the height changes when a phone's address bar hides
  width = innerWidth;
});

open();
await leaderboard();
performance.mark("ready");
root.dataset.ready = "true";
