(() => {
  "use strict";
  const specs = JSON.parse(document.getElementById("chart-data").textContent);
  const plots = Object.keys(specs).map((key) => document.getElementById(key));
  const paint = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Colours of the page's light, dark or printed style, as a flat update of a layout.
  function colours(layout) {
    const [ink, grid, rule, paper] = ["--ink", "--grid", "--rule", "--paper"].map(paint);
    const update = {
      "modebar.bgcolor": paper, "modebar.color": rule, "modebar.activecolor": ink,
      "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
      "font.color": ink, "hoverlabel.bgcolor": paper, "hoverlabel.bordercolor": rule, "hoverlabel.font.color": ink,
    };
    for (const axis of Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))) {
      Object.assign(update, {
        [`${axis}.gridcolor`]: grid, [`${axis}.linecolor`]: rule, [`${axis}.tickcolor`]: rule,
        [`${axis}.zerolinecolor`]: rule,
      });
    }
    return update;
  }

  function nest(target, flat) {
    for (const [path, value] of Object.entries(flat)) {
      const keys = path.split(".");
      const last = keys.pop();
      keys.reduce((at, key) => (at[key] ??= {}), target)[last] = value;
    }
    return target;
  }

  // A narrow screen wraps the legend under the chart into many lines; the chart keeps its height.
  function height(plot, spec) {
    const entries = spec.data.filter((trace) => trace.showlegend !== false).length;
    const narrow = plot.clientWidth < 600 && spec.layout.showlegend !== false;
    return plot.baseHeight + (narrow ? Math.ceil(entries / 2) * 19 : 0);
  }

  async function draw() {
    for (const plot of plots) {
      const spec = specs[plot.id];
      plot.baseHeight = parseInt(plot.style.height, 10);
      plot.style.height = `${height(plot, spec)}px`;
      const layout = nest(spec.layout, colours(spec.layout));
      nest(layout, { "font.family": getComputedStyle(document.body).fontFamily, "font.size": 12 });
      const narrow = plot.clientWidth < 600;
      if (narrow || matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls the page
      await Plotly.newPlot(plot, spec.data, layout, {
        responsive: true, displaylogo: false, scrollZoom: false, displayModeBar: narrow ? false : "hover",
        modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
        toImageButtonOptions: { format: "png", filename: plot.id, scale: 2 },
      });
      await new Promise((done) => setTimeout(done, 0));
    }
    document.documentElement.dataset.drawn = plots.length;
  }

  const repaint = () => plots.forEach((plot) => plot.layout && Plotly.relayout(plot, colours(plot.layout)));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  // Print on paper's width and in its colours, then go back to the screen's.
  addEventListener("beforeprint", () => plots.forEach((plot) => {
    const width = plot.closest(".panels, .pair") ? 320 : 690;
    Plotly.relayout(plot, { ...colours(plot.layout), width });
  }));
  addEventListener("afterprint", () => plots.forEach((plot) => {
    Plotly.relayout(plot, { ...colours(plot.layout), width: null, autosize: true });
  }));

  function sortBy(table, column, header) {
    const numeric = header.classList.contains("number");
    const order = header.getAttribute("aria-sort");
    const descending = order ? order === "ascending" : numeric;
    const rows = [...table.tBodies[0].rows];
    const key = (row) => {
      const cell = row.cells[column];
      return numeric ? (cell.dataset.value === undefined ? null : Number(cell.dataset.value)) : cell.textContent;
    };
    rows.sort((a, b) => {
      const [left, right] = [key(a), key(b)];
      if (left === null || right === null) return (left === null) - (right === null); // undefined stays last
      const by = numeric ? left - right : left.localeCompare(right);
      return descending ? -by : by;
    });
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    table.tBodies[0].append(...rows);
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("th").forEach((header, column) => {
      header.querySelector("button").addEventListener("click", () => sortBy(table, column, header));
    });
  }

  draw();
})();
