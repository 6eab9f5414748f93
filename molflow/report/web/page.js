"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = id => document.getElementById(id);
  const body = document.querySelector("#molecules tbody");
  const rows = [...body.rows];
  let viewer = null, chosen = {atoms: [], bonds: []};

  // ---- 3D: one viewer, that shows the chosen row or a frame of the animation ----

  function draw(scene, zoom) {
    chosen = scene;
    if (!viewer) return;
    const atoms = scene.atoms.map(([elem, x, y, z], i) =>
      ({elem, x, y, z, serial: i, index: i, bonds: [], bondOrder: []}));
    for (const [i, j, order] of scene.bonds) {
      atoms[i].bonds.push(j); atoms[i].bondOrder.push(order);
      atoms[j].bonds.push(i); atoms[j].bondOrder.push(order);
    }
    viewer.removeAllModels();
    viewer.addModel().addAtoms(atoms);
    viewer.setStyle({}, {stick: {radius: 0.1}, sphere: {scale: 0.25}});
    if (zoom) viewer.zoomTo();
    viewer.render();
  }

  function choose(i) {
    pause();
    for (const row of rows) row.setAttribute("aria-selected", Number(row.dataset.molecule) === i);
    for (const dot of document.querySelectorAll("[data-dot]")) dot.classList.toggle("chosen", Number(dot.dataset.dot) === i);
    const molecule = data.molecules[i];
    const words = rows.find(row => Number(row.dataset.molecule) === i).cells[2];
    at("caption").textContent = [`Molecule ${i + 1}`, ...[...words.children].map(span => span.textContent)].filter(Boolean).join(" · ") + (molecule.atoms.length ? "" : " (no structure to be shown)");
    at("fields").replaceChildren(...molecule.fields.flatMap(([key, value]) => {
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      dt.textContent = key;
      dd.textContent = value;
      return [dt, dd];
    }));
    draw(molecule, true);
  }

  // ---- animation: x(t) of the flow, from noise to structure ----

  let timer = null;

  function pause() {
    clearInterval(timer);
    timer = null;
    if (at("play")) at("play").textContent = at("play").textContent.replace("❚❚", "▶");
  }

  function frame(i) {
    const {t, ...scene} = data.frames[i];
    at("time").value = i;
    at("now").textContent = `t = ${t.toFixed(2)}`;
    at("caption").textContent = `Molecule ${Number(at("animation").dataset.molecule) + 1} on its way: elements and bonds as decoded at t = ${t.toFixed(2)}`;
    draw(scene, false);
  }

  function play() {
    if (timer) { pause(); return; }
    const last = data.frames.length - 1;
    const start = Number(at("time").value);
    choose(Number(at("animation").dataset.molecule));
    let i = start === last ? 0 : start;
    at("play").textContent = at("play").textContent.replace("▶", "❚❚");
    frame(i);
    timer = setInterval(() => i < last ? frame(++i) : pause(), 160);
  }

  if (at("animation")) {
    at("play").addEventListener("click", play);
    at("time").addEventListener("input", () => {
      const i = Number(at("time").value);
      choose(Number(at("animation").dataset.molecule));
      frame(i);
    });
  }

  // ---- table: choose, sort, filter ----

  body.addEventListener("click", event => choose(Number(event.target.closest("tr").dataset.molecule)));
  body.addEventListener("keydown", event => {
    const step = {ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling"}[event.key];
    let row = event.target.closest("tr");
    if (step) do row = row[step]; while (row && row.hidden);
    else if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (!row) return;
    row.focus();
    choose(Number(row.dataset.molecule));
  });

  for (const button of document.querySelectorAll("#molecules th button")) button.addEventListener("click", () => {
    const head = button.parentElement, column = head.cellIndex, numbers = "number" in head.dataset;
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = row => {
      const cell = row.cells[column];
      return numbers ? Number(cell.dataset.value ?? cell.textContent) : cell.textContent.trim();
    };
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // what has no value comes last
      return (falling ? -1 : 1) * (numbers ? x - y : x.localeCompare(y));
    };
    body.append(...rows.sort(order));
  });

  function filter() {
    const wanted = at("find").value.trim().toLowerCase();
    for (const row of rows) {
      const text = `${row.cells[0].textContent} ${row.cells[2].textContent}`.toLowerCase();
      row.hidden = !text.includes(wanted) || at("valid-only").checked && !("valid" in row.dataset);
    }
    at("count").textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
  }
  at("find").addEventListener("input", filter);
  at("valid-only").addEventListener("change", filter);

  document.querySelectorAll("[data-dot]").forEach(dot => dot.addEventListener("click", () => choose(Number(dot.dataset.dot))));

  // ---- download, and off ----

  const bytes = Uint8Array.from(atob(data.sdf), letter => letter.charCodeAt(0));
  at("sdf").href = URL.createObjectURL(new Blob([bytes], {type: "chemical/x-mdl-sdfile"}));

  if (rows.length) choose(0);
  requestAnimationFrame(() => setTimeout(() => { // WebGL may take a second to start: the table is there before it
    try {
      viewer = $3Dmol.createViewer(at("viewer"), {backgroundAlpha: 0});
    } catch (error) {
      viewer = null;
    }
    if (!viewer) at("viewer").textContent = "This browser shows no 3D: it has no WebGL.";
    draw(chosen, true);
    at("viewer").viewer = viewer; // for the console
  }));
})();
